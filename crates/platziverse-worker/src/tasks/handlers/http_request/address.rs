//! Which IP addresses may be connected to.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// A host has no public address, and may not be called at another one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{host} is at {address}, which is no public address: tasks.http_allow_private allows those"
)]
pub(super) struct NotPublic {
    pub(super) host: String,
    /// One of its addresses.
    pub(super) address: IpAddr,
}

/// Whether an address belongs to one host of the public Internet: to none of the ranges that the
/// registries of special addresses (RFC 6890) keep for other purposes.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        // This network, private, loopback.
        [0 | 10 | 127, ..]
            // Shared: between a provider and its customers.
            | [100, 64..=127, ..]
            // Link-local, where clouds have their metadata.
            | [169, 254, ..]
            // Private.
            | [172, 16..=31, ..]
            | [192, 168, ..]
            // Protocol assignments, documentation, relays of 6to4, benchmarks.
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 18..=19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            // Multicast, reserved, broadcast.
            | [224..=255, ..]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // IPv4-mapped and NAT64: what is connected to is the IPv4 address at the end.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = address.octets();
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Protocol assignments, Teredo among them; documentation; 6to4; documentation.
        [0x2001, 0..=0x01ff | 0x0db8, ..] | [0x2002, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // All that is global unicast. Not in it: unspecified, loopback, IPv4-compatible, unique
        // local, link-local, multicast, local NAT64, and what is not assigned.
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

/// The addresses out of those of a host that may be connected to.
fn allowed(
    host: &str,
    found: impl Iterator<Item = SocketAddr>,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, NotPublic> {
    let (good, bad): (Vec<_>, Vec<_>) =
        found.partition(|address| allow_private || is_public(address.ip()));
    match bad.first() {
        Some(bad) if good.is_empty() => Err(NotPublic { host: host.to_owned(), address: bad.ip() }),
        _ => Ok(good),
    }
}

/// Resolves names through the operating system, to addresses that may be connected to.
///
/// The connector connects to exactly these, so that a name cannot have another address by then. It
/// does not ask for hosts that are IP addresses.
#[derive(Clone)]
pub(super) struct Resolver {
    pub(super) allow_private: bool,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        Box::pin(async move {
            // The connector sets the port.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(allowed(name.as_str(), found, allow_private)?.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_public() {
        let check = |addresses: &[&str], want: bool| {
            for address in addresses {
                assert_eq!(is_public(address.parse().unwrap()), want, "{address}");
            }
        };
        check(&["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"], true);
        check(&["126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0"], true);
        check(&["172.15.255.255", "172.32.0.0", "192.167.255.255", "192.169.0.0"], true);
        check(&["192.0.1.1", "198.17.255.255", "198.20.0.0", "223.255.255.255"], true);
        check(&["0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "127.0.0.1"], false);
        check(&["127.255.255.255", "100.64.0.0", "100.127.255.255", "169.254.169.254"], false);
        check(&["172.16.0.0", "172.31.255.255", "192.168.0.1", "192.0.0.8", "192.0.2.1"], false);
        check(&["192.88.99.1", "198.18.0.0", "198.19.255.255", "198.51.100.1"], false);
        check(&["203.0.113.1", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255"], false);
        check(&["2606:4700::1111", "2a00::1", "2001:200::", "2001:db9::", "2003::1"], true);
        check(&["3fff:1000::", "3ffe::1", "2000::"], true);
        check(&["::ffff:1.1.1.1", "64:ff9b::1.1.1.1"], true);
        check(&["::", "::1", "::2", "::10.0.0.1", "::1.1.1.1"], false);
        check(&["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"], false);
        check(&["64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::1.1.1.1"], false);
        check(&["100::1", "2001::1", "2001:1ff::", "2001:db8::1", "2002:0101:0101::"], false);
        check(&["3fff::1", "3fff:fff::", "5f00::1", "4000::", "1fff::"], false);
        check(&["fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1"], false);
    }

    #[test]
    fn what_is_left_of_the_addresses_of_a_host() {
        let check = |found: &[&str], allow_private: bool, want: Result<&[&str], &str>| {
            let parse = |text: &&str| -> SocketAddr { (text.parse::<IpAddr>().unwrap(), 0).into() };
            let want: Result<Vec<_>, _> = want
                .map(|good| good.iter().map(parse).collect())
                .map_err(|bad| NotPublic { host: "x".to_owned(), address: bad.parse().unwrap() });
            assert_eq!(allowed("x", found.iter().map(parse), allow_private), want, "{found:?}");
        };
        check(&[], false, Ok(&[]));
        check(&["1.1.1.1", "::1", "2a00::1"], false, Ok(&["1.1.1.1", "2a00::1"]));
        check(&["10.0.0.1", "::1"], false, Err("10.0.0.1"));
        check(&["10.0.0.1", "1.1.1.1"], true, Ok(&["10.0.0.1", "1.1.1.1"]));
    }
}
