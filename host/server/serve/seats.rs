//! How many connections there may be: in all, and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::Peer;
use crate::rates::counted;

/// The connections that are open.
#[derive(Clone)]
pub(super) struct Seats {
    most: usize,
    most_per_ip: usize,
    /// Changed as a connection begins and ends, by the front's one thread.
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// As many as there are connections, at the most.
    by_ip: HashMap<IpAddr, usize>,
}

/// A connection's place, given back on drop.
pub(super) struct Seat {
    seats: Seats,
    ip: Option<IpAddr>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSeat {
    All,
    Ip,
}

impl Seats {
    pub(super) fn new(most: usize, most_per_ip: usize) -> Self {
        Seats { most, most_per_ip, taken: Arc::default() }
    }

    pub(super) fn take(&self, peer: Peer) -> Result<Seat, NoSeat> {
        let ip = peer.ip().map(counted);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.most {
            return Err(NoSeat::All);
        }
        if let Some(ip) = ip {
            let of_ip = taken.by_ip.entry(ip).or_default();
            // An entry that was just made is 0, and no limit is.
            if *of_ip >= self.most_per_ip {
                return Err(NoSeat::Ip);
            }
            *of_ip += 1;
        }
        taken.all += 1;
        Ok(Seat { seats: self.clone(), ip })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(ip) = self.ip
            && let Some(of_ip) = taken.by_ip.get_mut(&ip)
        {
            *of_ip -= 1;
            if *of_ip == 0 {
                taken.by_ip.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_in_all_and_by_address_and_come_back() {
        let seats = Seats::new(3, 2);
        let peer = |text: &str| Peer::Ip(text.parse().unwrap());
        let first = seats.take(peer("10.0.0.1")).unwrap();
        let _second = seats.take(peer("::ffff:10.0.0.1")).unwrap();
        assert_eq!(seats.take(peer("10.0.0.1")).err(), Some(NoSeat::Ip));
        let other = seats.take(peer("10.0.0.2")).unwrap();
        assert_eq!(seats.take(Peer::Socket).err(), Some(NoSeat::All));
        drop(first);
        let socket = seats.take(Peer::Socket).unwrap();
        drop(other);
        drop(seats.take(peer("10.0.0.1")).unwrap());
        drop((socket, _second));
        assert!(seats.taken.lock().unwrap().by_ip.is_empty());
        assert_eq!(seats.taken.lock().unwrap().all, 0);
    }
}
