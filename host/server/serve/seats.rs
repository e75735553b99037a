//! How many connections there may be, in all and of one address, and who goes where there is no
//! place left.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infer_sandbox::RequestMemory;
use tokio::time::Instant;

use super::Peer;
use super::activity::Activity;
use crate::rates::counted;

/// The connections that are open.
#[derive(Clone)]
pub(super) struct Seats {
    most: usize,
    most_per_ip: usize,
    memory: RequestMemory,
    /// Changed as a connection begins and ends, by the front's one thread.
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    open: HashMap<u64, Open>,
    /// As many as there are connections, at the most.
    by_ip: HashMap<IpAddr, usize>,
}

struct Open {
    ip: Option<IpAddr>,
    activity: Arc<Activity>,
}

/// A connection's place, given back on drop, or when it is taken for another.
pub(super) struct Seat {
    seats: Seats,
    id: u64,
    activity: Arc<Activity>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSeat {
    All,
    Ip,
}

impl Seats {
    pub(super) fn new(most: usize, most_per_ip: usize, memory: RequestMemory) -> Self {
        Seats { most, most_per_ip, memory, taken: Arc::default() }
    }

    /// A place for a connection from `peer`. Where all are taken, the connection that is worth least
    /// is closed: one without a request before one that asked, one without a valid API key before one
    /// that has shown it, and of those the one that has been quiet for longest. A connection whose
    /// request is being worked on stays.
    ///
    /// # Errors
    ///
    /// When the address has as many as it may, or no connection can be closed.
    pub(super) fn take(&self, peer: Peer) -> Result<Seat, NoSeat> {
        let ip = peer.ip().map(counted);
        let mut taken = self.taken();
        let of_ip = ip.and_then(|ip| taken.by_ip.get(&ip)).copied().unwrap_or(0);
        if of_ip >= self.most_per_ip {
            return Err(NoSeat::Ip);
        }
        if taken.open.len() >= self.most {
            let least = taken.least(Instant::now()).ok_or(NoSeat::All)?;
            if let Some(open) = taken.remove(least) {
                open.activity.evict();
            }
        }
        if let Some(ip) = ip {
            *taken.by_ip.entry(ip).or_default() += 1;
        }
        let id = taken.next;
        taken.next += 1;
        let activity = Arc::new(Activity::new(self.memory.clone()));
        taken.open.insert(id, Open { ip, activity: activity.clone() });
        drop(taken);
        Ok(Seat { seats: self.clone(), id, activity })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The connection that is closed first.
    fn least(&self, now: Instant) -> Option<u64> {
        let worth = |(id, open): (&u64, &Open)| Some((open.activity.worth(now)?, *id));
        self.open.iter().filter_map(worth).min().map(|(_, id)| id)
    }

    fn remove(&mut self, id: u64) -> Option<Open> {
        let open = self.open.remove(&id)?;
        if let Some(ip) = open.ip
            && let Some(of_ip) = self.by_ip.get_mut(&ip)
        {
            *of_ip -= 1;
            if *of_ip == 0 {
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

    fn seats(most: usize, most_per_ip: usize) -> Seats {
        Seats::new(most, most_per_ip, RequestMemory::default())
    }

    fn is_open(seats: &Seats, seat: &Seat) -> bool {
        seats.taken().open.contains_key(&seat.id)
    }

    #[test]
    fn seats_are_bounded_in_all_and_by_address_and_come_back() {
        let seats = seats(3, 2);
        let first = seats.take(peer("10.0.0.1")).unwrap();
        let second = seats.take(peer("::ffff:10.0.0.1")).unwrap();
        assert_eq!(seats.take(peer("10.0.0.1")).err(), Some(NoSeat::Ip));
        let other = seats.take(peer("10.0.0.2")).unwrap();
        let work = [&first, &second, &other].map(|seat| seat.activity().begin(false, true));
        assert_eq!(seats.take(Peer::Socket).err(), Some(NoSeat::All));
        drop(work);
        drop(first);
        let socket = seats.take(Peer::Socket).unwrap();
        drop(other);
        drop(seats.take(peer("10.0.0.1")).unwrap());
        drop((socket, second));
        assert!(seats.taken().by_ip.is_empty());
        assert!(seats.taken().open.is_empty());
    }

    #[test]
    fn newcomer_takes_the_seat_worth_least() {
        let seats = seats(3, 3);
        let [keyed, asked, silent] =
            ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| seats.take(peer(ip)).unwrap());
        let request = keyed.activity().begin(false, true);
        request.lease().authenticate();
        drop(request);
        drop(asked.activity().begin(false, true));
        let one = seats.take(peer("10.0.0.4")).unwrap();
        assert!(!is_open(&seats, &silent) && is_open(&seats, &asked) && is_open(&seats, &keyed));
        let work = one.activity().begin(false, true);
        let other = seats.take(peer("10.0.0.5")).unwrap();
        assert!(!is_open(&seats, &asked) && is_open(&seats, &one) && is_open(&seats, &keyed));
        let more = other.activity().begin(false, true);
        // The one with a key was in use a moment ago.
        assert_eq!(seats.take(peer("10.0.0.6")).err(), Some(NoSeat::All));
        drop((work, more, silent, asked));
        assert_eq!(seats.taken().open.len(), 3);
    }
}
