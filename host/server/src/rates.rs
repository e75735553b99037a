//! Token buckets, per key and per address.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, NotUntil, Quota, RateLimiter};
use infer_config::Rate;

use crate::limits::MAX_ADDRESSES;

/// Minimum interval between sweeps of full buckets: a sweep visits all of them.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Time until the next token is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(Duration);

impl Wait {
    /// Rounded up to whole seconds, at least one, for `Retry-After`.
    #[must_use]
    pub fn seconds(self) -> u64 {
        let whole = self.0.as_secs();
        (whole + u64::from(self.0.subsec_nanos() > 0)).max(1)
    }
}

/// A token bucket.
pub struct Bucket(DefaultDirectRateLimiter);

impl Bucket {
    /// Creates a full bucket.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Bucket(RateLimiter::direct(quota(rate)))
    }

    /// Takes a token.
    ///
    /// # Errors
    ///
    /// The time until the next token, if the bucket is empty.
    pub fn take(&self) -> Result<(), Wait> {
        self.0.check().map_err(|not_until| wait(&not_until))
    }
}

/// One bucket for each address with recent requests.
pub struct Addresses {
    buckets: DefaultKeyedRateLimiter<IpAddr>,
    max_addresses: usize,
    /// Locked at most once per [`SWEEP_INTERVAL`] while there are many addresses, otherwise never.
    swept: Mutex<Instant>,
}

impl Addresses {
    /// Creates an empty table.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Addresses {
            buckets: RateLimiter::keyed(quota(rate)),
            max_addresses: MAX_ADDRESSES,
            swept: Mutex::new(Instant::now()),
        }
    }

    /// Takes a token of `address`, grouped by [`client_address`].
    ///
    /// # Errors
    ///
    /// The time until the next token. While the table is full, every address is rejected: no bucket
    /// is evicted early, because its address would get a full bucket again.
    pub fn take(&self, address: IpAddr) -> Result<(), Wait> {
        if self.buckets.len() >= self.max_addresses && !self.sweep() {
            return Err(Wait(SWEEP_INTERVAL));
        }
        self.buckets.check_key(&client_address(address)).map_err(|not_until| wait(&not_until))
    }

    /// Drops the buckets that are full again; false if the table is still full.
    fn sweep(&self) -> bool {
        let mut swept = self.swept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if swept.elapsed() >= SWEEP_INTERVAL {
            *swept = Instant::now();
            self.buckets.retain_recent();
            self.buckets.shrink_to_fit();
        }
        self.buckets.len() < self.max_addresses
    }
}

/// The client that an address is counted as: an IPv4 address, or the /64 network of an IPv6
/// address.
#[must_use]
pub fn client_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

fn wait<I: governor::clock::Reference>(not_until: &NotUntil<I>) -> Wait
where
    DefaultClock: governor::clock::Clock<Instant = I>,
{
    Wait(not_until.wait_time_from(DefaultClock::default().now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() }
    }

    #[test]
    fn ipv4_address_and_ipv6_64_share_bucket() {
        let addresses = Addresses::new(rate(1, 1));
        let take = |address: &str| addresses.take(address.parse().unwrap()).is_ok();
        assert!(take("10.0.0.1"));
        assert!(!take("10.0.0.1"));
        assert!(!take("::ffff:10.0.0.1"));
        assert!(take("10.0.0.2"));
        assert!(take("2001:db8::1"));
        assert!(!take("2001:db8::ffff:2"));
        assert!(take("2001:db8:0:1::1"));
    }

    #[test]
    fn full_buckets_are_swept_and_addresses_bounded() {
        // At 1000 per second, a bucket is full again after a millisecond.
        let mut addresses = Addresses::new(rate(1_000, 1));
        addresses.max_addresses = 10;
        let address = |last: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(last));
        let passed = (0..100).filter(|&last| addresses.take(address(last)).is_ok()).count();
        assert_eq!(passed, 10, "at most `max_addresses` before the sweep");
        assert_eq!(addresses.buckets.len(), 10);
        *addresses.swept.lock().unwrap() = Instant::now() - SWEEP_INTERVAL;
        std::thread::sleep(Duration::from_millis(20));
        assert!(addresses.take(address(101)).is_ok());
        assert_eq!(addresses.buckets.len(), 1);
    }

    #[test]
    fn waits_round_up_to_whole_seconds() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_500, 60)] {
            assert_eq!(Wait(Duration::from_millis(millis)).seconds(), seconds);
        }
    }
}
