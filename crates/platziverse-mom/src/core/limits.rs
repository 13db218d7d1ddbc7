//! How often a user may ask, and an address may register.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use platziverse_config::MomConfig;
use uuid::Uuid;

use crate::core::refusal::Refusal;

/// A limit for each key of a kind.
type Limiter<K> = RateLimiter<
    K,
    HashMapStateStore<K>,
    MonotonicClock,
    NoOpMiddleware<<MonotonicClock as Clock>::Instant>,
>;

/// How often users may ask and addresses may register, at this server.
#[derive(Debug)]
pub(crate) struct Limits {
    requests: Option<Limiter<Uuid>>,
    registrations: Option<Limiter<IpAddr>>,
    per_second: u32,
    per_minute: u32,
}

impl Limits {
    pub(crate) fn new(settings: &MomConfig) -> Self {
        Self {
            requests: NonZeroU32::new(settings.rate_per_key)
                .map(|rate| limiter(Quota::per_second(rate))),
            registrations: NonZeroU32::new(settings.registrations_per_address)
                .map(|rate| limiter(Quota::per_minute(rate))),
            per_second: settings.rate_per_key,
            per_minute: settings.registrations_per_address,
        }
    }

    /// Counts a request of a user.
    pub(crate) fn request(&self, user: Uuid) -> Result<(), Refusal> {
        let Some(limiter) = &self.requests else { return Ok(()) };
        take(limiter, user).map_err(|wait| {
            let detail = format!(
                "a key may send {} requests a second to one server (mom.rate_per_key)",
                self.per_second
            );
            Refusal::too_many(detail, wait)
        })
    }

    /// Counts a new user from an address.
    pub(crate) fn registration(&self, address: IpAddr) -> Result<(), Refusal> {
        let Some(limiter) = &self.registrations else { return Ok(()) };
        take(limiter, network(address)).map_err(|wait| {
            let detail = format!(
                "one address may make {} users a minute at one server \
                 (mom.registrations_per_address)",
                self.per_minute
            );
            Refusal::too_many(detail, wait)
        })
    }

    /// Forgets those who have not asked for so long that nothing is known against them.
    pub(crate) fn forget(&self) {
        if let Some(limiter) = &self.requests {
            limiter.retain_recent();
        }
        if let Some(limiter) = &self.registrations {
            limiter.retain_recent();
        }
    }
}

fn limiter<K: Clone + std::hash::Hash + Eq>(quota: Quota) -> Limiter<K> {
    RateLimiter::new(quota, HashMapStateStore::default(), MonotonicClock)
}

/// Takes one, or says how long to wait for it.
fn take<K: Clone + std::hash::Hash + Eq>(limiter: &Limiter<K>, key: K) -> Result<(), Duration> {
    limiter.check_key(&key).map_err(|until| until.wait_time_from(limiter.clock().now()))
}

/// What one customer of a network has: an IPv4 address, or 64 bits of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::refusal::Code;

    fn limits(rate: u32, registrations: u32) -> Limits {
        Limits::new(&MomConfig {
            rate_per_key: rate,
            registrations_per_address: registrations,
            ..MomConfig::default()
        })
    }

    #[test]
    fn each_key_has_a_limit_of_its_own() {
        let limits = limits(1, 0);
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(limits.request(one), Ok(()));
        let refusal = limits.request(one).unwrap_err();
        assert_eq!(refusal.code, Code::TooManyRequests);
        assert!(refusal.retry_after.unwrap() <= Duration::from_secs(1), "{refusal:?}");
        assert_eq!(limits.request(other), Ok(()));
        limits.forget();
        assert!(limits.request(one).is_err(), "it is still known");
    }

    #[test]
    fn nought_is_no_limit() {
        let limits = limits(0, 0);
        for _ in 0..1_000 {
            assert_eq!(limits.request(Uuid::nil()), Ok(()));
            assert_eq!(limits.registration(IpAddr::from([127, 0, 0, 1])), Ok(()));
        }
    }

    #[test]
    fn one_network_counts_once() {
        let limits = limits(0, 1);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(limits.registration(address("192.0.2.1")), Ok(()));
        assert!(limits.registration(address("::ffff:192.0.2.1")).is_err());
        assert_eq!(limits.registration(address("192.0.2.2")), Ok(()));
        assert_eq!(limits.registration(address("2001:db8::1")), Ok(()));
        assert!(limits.registration(address("2001:db8::2")).is_err());
        assert_eq!(limits.registration(address("2001:db8:0:1::1")), Ok(()));
    }
}
