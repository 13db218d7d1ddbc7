//! TCP ports for the programs under test.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// An address on loopback that nobody listens on, given to nobody else in this process until all
/// have been given. It is below the range from which the kernel takes the ports of outgoing
/// connections.
pub fn free_port() -> SocketAddr {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..2 {
        for _ in 0..10_000 {
            let port = fastrand::u16(12_000..20_000);
            if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() && given.insert(port) {
                return SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            }
        }
        // A long run has given them all, and most of those programs have ended.
        given.clear();
    }
    panic!("no free TCP port between 12000 and 20000");
}

/// An address on loopback where connections are refused.
pub fn closed_port() -> SocketAddr {
    free_port()
}
