//! How many WebSockets there may be: in all, of one client, from one address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use platziverse_config::AggregatorConfig;
use prometheus_client::metrics::gauge::Gauge;

/// Counts the WebSockets that are open.
#[derive(Debug)]
pub struct Doors {
    limits: Limits,
    inner: Mutex<Inner>,
    shown: Gauge,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    all: usize,
    per_client: usize,
    per_address: usize,
}

#[derive(Debug, Default)]
struct Inner {
    all: usize,
    clients: HashMap<Arc<str>, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Crowded {
    /// Of all.
    #[error("this aggregator has as many WebSockets as it may (aggregator.sockets_max)")]
    All,
    /// Of the client.
    #[error("this client has as many WebSockets as it may (aggregator.sockets_per_client)")]
    Client,
    /// Of the address.
    #[error(
        "there are as many WebSockets from this address as there may be (aggregator.sockets_per_address)"
    )]
    Address,
}

/// A WebSocket that is counted until this is dropped.
#[derive(Debug)]
pub struct Seat {
    doors: Arc<Doors>,
    client: Arc<str>,
    address: IpAddr,
}

impl Doors {
    /// With the limits of these settings.
    pub fn new(settings: &AggregatorConfig, shown: Gauge) -> Arc<Self> {
        let limits = Limits {
            all: settings.sockets_max,
            per_client: settings.sockets_per_client,
            per_address: settings.sockets_per_address,
        };
        Arc::new(Self { limits, inner: Mutex::default(), shown })
    }

    /// Lets one more in.
    pub fn open(self: &Arc<Self>, client: &str, address: IpAddr) -> Result<Seat, Crowded> {
        let mut inner = self.inner();
        if inner.all >= self.limits.all {
            return Err(Crowded::All);
        }
        if inner.clients.get(client).is_some_and(|open| *open >= self.limits.per_client) {
            return Err(Crowded::Client);
        }
        if inner.addresses.get(&address).is_some_and(|open| *open >= self.limits.per_address) {
            return Err(Crowded::Address);
        }
        let client: Arc<str> = client.into();
        inner.all += 1;
        *inner.clients.entry(Arc::clone(&client)).or_default() += 1;
        *inner.addresses.entry(address).or_default() += 1;
        self.shown.inc();
        Ok(Seat { doors: Arc::clone(self), client, address })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is in it is whole after any panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Whose it is.
    pub fn client(&self) -> &Arc<str> {
        &self.client
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut inner = self.doors.inner();
        inner.all = inner.all.saturating_sub(1);
        one_less(&mut inner.clients, &self.client);
        one_less(&mut inner.addresses, &self.address);
        self.doors.shown.dec();
    }
}

fn one_less<K: Eq + Hash>(open: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = open.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            open.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_said_and_left_again() {
        let settings = AggregatorConfig {
            sockets_max: 3,
            sockets_per_client: 1,
            sockets_per_address: 2,
            ..AggregatorConfig::default()
        };
        let doors = Doors::new(&settings, Gauge::default());
        let [one, two] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        let ana = doors.open("ana", one).unwrap();
        assert_eq!(doors.open("ana", two).unwrap_err(), Crowded::Client);
        let _bob = doors.open("bob", one).unwrap();
        assert_eq!(doors.open("eve", one).unwrap_err(), Crowded::Address);
        let eve = doors.open("eve", two).unwrap();
        assert_eq!(doors.open("zoe", two).unwrap_err(), Crowded::All);
        drop((ana, eve));
        let _ana = doors.open("ana", one).unwrap();
        assert_eq!(doors.inner().clients.len(), 2);
        assert_eq!((doors.inner().addresses.len(), doors.shown.get()), (1, 2));
    }
}
