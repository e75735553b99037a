//! Connection limits, in total and per address, and eviction when they are reached.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infer_sandbox::RequestMemory;
use tokio::time::Instant;

use super::activity::{Activity, Crowd};
use super::peer::Peer;
use crate::rates::client_address;

/// Divisor: 1/64 of the open connections are selected for eviction at a time.
const EVICTION_SHARE: usize = 64;

/// The open connections.
#[derive(Clone)]
pub(super) struct Seats {
    max: usize,
    max_per_ip: usize,
    memory: RequestMemory,
    /// Locked as a connection begins and ends, by the connection thread.
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    open: HashMap<u64, Open>,
    /// Candidates for eviction, the next one last, and the times since which they had been quiet.
    /// They are cached because ranking all connections is slow.
    eviction_order: Vec<(u64, Instant)>,
    /// At most one entry per connection.
    by_ip: HashMap<IpAddr, Address>,
}

/// The connections of one address.
#[derive(Default)]
struct Address {
    open: usize,
    anonymous: Crowd,
}

struct Open {
    ip: Option<IpAddr>,
    activity: Arc<Activity>,
}

/// A permit for one connection, released on drop or on eviction.
pub(super) struct Seat {
    seats: Seats,
    id: u64,
    activity: Arc<Activity>,
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSeat {
    /// The limit on all connections.
    All,
    /// The limit on the connections of one address.
    Ip,
}

impl Seats {
    pub(super) fn new(max: usize, max_per_ip: usize, memory: RequestMemory) -> Self {
        Seats { max, max_per_ip, memory, taken: Arc::default() }
    }

    /// Takes a seat for a connection from `peer`. If the total limit or the limit of the address is
    /// reached, another connection is evicted. Connections without a valid API key go first; among
    /// them, those of the address that has the most; among those, the one that has been quiet
    /// longest. A connection with a request in progress stays.
    ///
    /// # Errors
    ///
    /// If no connection, or none of the address, can be evicted.
    pub(super) fn take(&self, peer: Peer) -> Result<Seat, NoSeat> {
        let ip = peer.ip().map(client_address);
        let mut taken = self.taken();
        let of_ip = ip.and_then(|ip| taken.by_ip.get(&ip)).map_or(0, |address| address.open);
        let now = Instant::now();
        let evicted = if of_ip >= self.max_per_ip {
            Some(taken.order(|open| open.ip == ip, now).first().ok_or(NoSeat::Ip)?.0)
        } else if taken.open.len() >= self.max {
            Some(taken.next_eviction(now).ok_or(NoSeat::All)?)
        } else {
            None
        };
        if let Some(open) = evicted.and_then(|id| taken.remove(id)) {
            open.activity.evict();
        }
        let mut crowd = Crowd::default();
        if let Some(ip) = ip {
            let address = taken.by_ip.entry(ip).or_default();
            address.open += 1;
            crowd = address.anonymous.clone();
        }
        let id = taken.next;
        taken.next += 1;
        let activity = Arc::new(Activity::new(self.memory.clone(), &crowd));
        taken.open.insert(id, Open { ip, activity: activity.clone() });
        drop(taken);
        Ok(Seat { seats: self.clone(), id, activity })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The connection to evict next.
    fn next_eviction(&mut self, now: Instant) -> Option<u64> {
        while let Some((id, since)) = self.eviction_order.pop() {
            // A connection that has been active since then may rank higher now.
            let rank = self.open.get(&id).and_then(|open| open.activity.rank(now));
            if rank.is_some_and(|rank| rank.since == since) {
                return Some(id);
            }
        }
        self.eviction_order = self.order(|_| true, now);
        self.eviction_order.truncate(self.open.len().div_ceil(EVICTION_SHARE));
        self.eviction_order.reverse();
        self.eviction_order.pop().map(|(id, _)| id)
    }

    /// The connections that `may` be evicted, in the order of eviction.
    fn order(&self, may: impl Fn(&Open) -> bool, now: Instant) -> Vec<(u64, Instant)> {
        let order = |(id, open): (&u64, &Open)| {
            let rank = open.activity.rank(now)?;
            Some((rank.is_authenticated, Reverse(rank.crowd), rank.since, *id))
        };
        let mut order: Vec<_> = self.open.iter().filter(|(_, open)| may(open)).filter_map(order).collect();
        order.sort_unstable();
        order.into_iter().map(|(.., since, id)| (id, since)).collect()
    }

    fn remove(&mut self, id: u64) -> Option<Open> {
        let open = self.open.remove(&id)?;
        open.activity.leave();
        if let Some(ip) = open.ip
            && let Some(address) = self.by_ip.get_mut(&ip)
        {
            address.open -= 1;
            if address.open == 0 {
                self.by_ip.remove(&ip);
            }
        }
        Some(open)
    }
}

impl Seat {
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken().remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Peer {
        Peer::Ip(text.parse().unwrap())
    }

    fn seats(max: usize, max_per_ip: usize) -> Seats {
        Seats::new(max, max_per_ip, RequestMemory::default())
    }

    /// Takes a seat whose connection has been read.
    fn take(seats: &Seats, ip: &str) -> Seat {
        let seat = seats.take(peer(ip)).unwrap();
        seat.activity().mark_read();
        seat
    }

    fn is_open(seats: &Seats, seat: &Seat) -> bool {
        seats.taken().open.contains_key(&seat.id)
    }

    #[test]
    fn seats_are_limited_and_released() {
        let seats = seats(3, 2);
        let first = take(&seats, "10.0.0.1");
        let second = take(&seats, "::ffff:10.0.0.1");
        let work = [&first, &second].map(|seat| seat.activity().begin(false, true));
        assert_eq!(seats.take(peer("10.0.0.1")).err(), Some(NoSeat::Ip));
        let other = take(&seats, "10.0.0.2");
        let more = other.activity().begin(false, true);
        assert_eq!(seats.take(Peer::Socket).err(), Some(NoSeat::All));
        drop((work, more));
        drop(first);
        let socket = seats.take(Peer::Socket).unwrap();
        drop(other);
        drop(take(&seats, "10.0.0.1"));
        drop((socket, second));
        assert!(seats.taken().by_ip.is_empty());
        assert!(seats.taken().open.is_empty());
    }

    #[test]
    fn full_address_loses_its_own_seat() {
        let seats = seats(4, 2);
        let [other, first, second] = ["10.0.0.2", "10.0.0.1", "10.0.0.1"].map(|ip| take(&seats, ip));
        let third = take(&seats, "10.0.0.1");
        assert!(!is_open(&seats, &first) && is_open(&seats, &second) && is_open(&seats, &third));
        assert!(is_open(&seats, &other));
    }

    #[test]
    fn client_with_key_is_evicted_last() {
        let seats = seats(2, 2);
        let [keyed, anonymous] = ["10.0.0.1", "10.0.0.2"].map(|ip| take(&seats, ip));
        let request = keyed.activity().begin(false, true);
        request.lease().authenticate();
        drop(request);
        drop(anonymous.activity().begin(false, true));
        let one = take(&seats, "10.0.0.4");
        assert!(!is_open(&seats, &anonymous) && is_open(&seats, &keyed));
        let _work = one.activity().begin(false, true);
        // The one with a key was active a moment ago.
        assert_eq!(seats.take(peer("10.0.0.6")).err(), Some(NoSeat::All));
    }

    #[test]
    fn unread_connection_is_not_evicted() {
        let seats = seats(1, 1);
        let first = seats.take(peer("10.0.0.1")).unwrap();
        assert_eq!(seats.take(peer("10.0.0.2")).err(), Some(NoSeat::All));
        first.activity().mark_read();
        assert!(seats.take(peer("10.0.0.2")).is_ok() && !is_open(&seats, &first));
    }

    #[test]
    fn address_with_most_seats_is_evicted_first() {
        let seats = seats(5, 4);
        let [alone, first, second, third] =
            ["10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.2"].map(|ip| take(&seats, ip));
        // A request does not protect a connection of an address that has more connections than
        // others.
        drop(first.activity().begin(false, true));
        let newcomer = take(&seats, "10.0.0.3");
        let last = take(&seats, "10.0.0.4");
        assert!(!is_open(&seats, &second), "it has been quiet for longer than the one with a request");
        for seat in [&alone, &first, &third, &newcomer, &last] {
            assert!(is_open(&seats, seat));
        }
    }
}
