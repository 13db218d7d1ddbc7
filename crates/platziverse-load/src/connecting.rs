//! From a server's address to connections that it has let in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::plan::Server;
use crate::wire::{self, Answer};

/// Connections that are made at the same time, unless the caller says how many.
pub(crate) const AT_ONCE: usize = 128;
/// How long a connection may take to be let in, with its subscription.
const LET_IN: Duration = Duration::from_secs(30);
/// Connections to this machine from one address of it. Each takes one of some 28,000 ports, and the
/// kernel takes milliseconds to find one when half are taken.
const FROM_ONE_ADDRESS: usize = 2_000;
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No connection.
    #[error("no connection to {address}")]
    Connect {
        /// The server's.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server does not let the client in.
    #[error("{address} does not let a client in: its CONNACK has the code {code}")]
    Refused {
        /// The server's.
        address: SocketAddr,
        /// The return code (MQTT 3.1.1, table 3.1).
        code: u8,
    },
    /// The server does not grant the QoS that was asked for.
    #[error("{address} does not grant a subscription: its SUBACK has the code {code}")]
    Subscription {
        /// The server's.
        address: SocketAddr,
        /// The return code (MQTT 3.1.1, 3.9.3): 0 to 2 is the QoS that it grants, 128 a refusal.
        code: u8,
    },
    /// The answer is not a CONNACK.
    #[error("{address} does not answer as an MQTT server")]
    NotMqtt {
        /// The server's.
        address: SocketAddr,
    },
    /// No server is given, or no client.
    #[error("there is no server or no client")]
    Nothing,
}

/// Makes `count` connections by `open`, spread over `servers`, `at_once` at a time. `tell` hears
/// every second, and at the end, how many there are.
///
/// # Errors
/// When one of them fails, or takes longer than 30 s; the others are closed.
pub(crate) async fn connect_all<T, F>(
    servers: &[Server],
    count: usize,
    at_once: usize,
    open: impl Fn(usize, Server) -> F,
    mut tell: impl FnMut(usize),
) -> Result<Vec<T>, LoadError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, LoadError>> + Send + 'static,
{
    if servers.is_empty() || count == 0 {
        return Err(LoadError::Nothing);
    }
    let (mut opening, mut all, mut begun) = (JoinSet::new(), Vec::with_capacity(count), 0);
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + TELL_EVERY, TELL_EVERY);
    loop {
        while begun < count && opening.len() < at_once.max(1) {
            let server = servers[begun % servers.len()].clone();
            let address = server.address;
            opening.spawn(in_time(address, open(begun, server)));
            begun += 1;
        }
        tokio::select! {
            opened = opening.join_next() => match opened {
                Some(Ok(opened)) => all.push(opened?),
                Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
                None => break,
            },
            _ = tick.tick() => tell(all.len()),
        }
    }
    tell(all.len());
    Ok(all)
}

/// One connection by `open`, within 30 s.
pub(crate) async fn in_time<T>(
    address: SocketAddr,
    open: impl Future<Output = Result<T, LoadError>>,
) -> Result<T, LoadError> {
    let late = || LoadError::Connect { address, source: io::ErrorKind::TimedOut.into() };
    tokio::time::timeout(LET_IN, open).await.unwrap_or_else(|_| Err(late()))
}

/// Connects client `number`, named `{name}-{number}`, and waits until the server has let it in. The
/// keep-alive is in seconds; 0 is none.
pub(crate) async fn connect(
    server: &Server,
    name: &str,
    number: usize,
    keep_alive: u16,
) -> Result<TcpStream, LoadError> {
    let address = server.address;
    let failed = |source| LoadError::Connect { address, source };
    let mut stream = dial(address, number).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let hello = wire::connect(&format!("{name}-{number}"), server.login.as_ref(), keep_alive);
    stream.write_all(&hello).await.map_err(failed)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.map_err(failed)?;
    match wire::first(&answer) {
        Some((Answer::Connack(0), _)) => Ok(stream),
        Some((Answer::Connack(code), _)) => Err(LoadError::Refused { address, code }),
        _ => Err(LoadError::NotMqtt { address }),
    }
}

/// Connects to this machine from 127.0.0.1, 127.0.0.2 and so on in turn.
async fn dial(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    let last = u8::try_from(1 + number / FROM_ONE_ADDRESS);
    match (address.ip(), last) {
        (IpAddr::V4(ip), Ok(last @ 2..)) if ip.is_loopback() => {
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
            socket.connect(address).await
        }
        _ => TcpStream::connect(address).await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn many_connections_come_from_several_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for (number, last) in [(0, 1), (1_999, 1), (2_000, 2), (19_999, 10), (1_000_000, 1)] {
            let stream = dial(address, number).await.unwrap();
            let from = stream.local_addr().unwrap().ip();
            assert_eq!(from, Ipv4Addr::new(127, 0, 0, last), "{number}");
        }
    }

    #[tokio::test]
    async fn one_that_fails_ends_all() {
        let server = Server { address: "127.0.0.1:1".parse().unwrap(), login: None };
        let open = |number, server: Server| async move {
            let address = server.address;
            (number < 3).then_some(number).ok_or(LoadError::NotMqtt { address })
        };
        let mut told = Vec::new();
        let servers = [server];
        let all = connect_all(&servers, 3, 2, open, |count| told.push(count)).await;
        assert_eq!((all.unwrap().len(), told), (3, vec![3]));
        let all = connect_all(&servers, 4, 2, open, |_| {}).await;
        assert!(matches!(all, Err(LoadError::NotMqtt { .. })));
        let all = connect_all(&[], 3, 2, open, |_| {}).await;
        assert!(matches!(all, Err(LoadError::Nothing)));
    }
}
