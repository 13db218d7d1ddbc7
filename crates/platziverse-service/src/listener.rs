//! A port on which a service is reached: each connection has a task, and there are only so many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::Service;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4_096;
/// How long nothing is accepted after an error, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "listening for {what} on {address} (set {setting}, or PLATZIVERSE_{}, to a free address)",
    setting.to_uppercase().replace('.', "__")
)]
pub struct ListenError {
    what: &'static str,
    setting: &'static str,
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// An open listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Opens the listener for `what`, whose address is the setting `setting`, such as `mom.listen`.
    /// Port 0 takes any free one.
    pub fn bind(
        what: &'static str,
        setting: &'static str,
        address: SocketAddr,
    ) -> Result<Self, ListenError> {
        let failed = |source| ListenError { what, setting, address, source };
        let socket = listen(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until the process is to end. Each connection has a task of its own for what it is
    /// there for; beyond `connections_max` they are closed at once. The gauge, a name and a sentence,
    /// shows how many there are.
    pub async fn accept<F: Future<Output = ()> + Send + 'static>(
        self,
        service: &Service,
        gauge: (&'static str, &'static str),
        connections_max: usize,
        converse: impl Fn(TcpStream, Peer) -> F,
    ) {
        let doors = Arc::new(Doors::new(service, gauge, connections_max));
        let drain = &service.drain;
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = drain.requested() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(open) = doors.open() else { continue };
                    // Answers are written whole, and not to be held back.
                    let _ = stream.set_nodelay(true);
                    let conversation = converse(stream, Peer(peer));
                    drain.spawn_isolated(async move {
                        conversation.await;
                        drop(open);
                    });
                }
                Err(error) => {
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Opens a port that many clients may come to at once.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How many connections there may be, and are.
struct Doors {
    most: usize,
    open: AtomicUsize,
    shown: Gauge,
}

impl Doors {
    fn new(service: &Service, (name, help): (&'static str, &'static str), most: usize) -> Self {
        let shown = Gauge::default();
        service.metrics.register(|registry| registry.register(name, help, shown.clone()));
        Self { most, open: AtomicUsize::new(0), shown }
    }

    /// Lets one more in, if there is room.
    fn open(self: &Arc<Self>) -> Option<Open> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.shown.inc();
        Some(Open(Arc::clone(self)))
    }
}

/// Counts a connection until it is dropped, also by a panic.
struct Open(Arc<Doors>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.shown.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use platziverse_config::Settings;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn as_many_are_let_in_as_may_be() {
        let service = Service::new("test", Settings::default());
        let local = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = Listener::bind("tests", "test.listen", local).unwrap();
        let address = listener.address();
        let echo = |mut stream: TcpStream, Peer(peer): Peer| async move {
            assert!(peer.ip().is_loopback());
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        };
        let accepting = listener.accept(&service, ("test_connections", "Connections"), 2, echo);
        let knocking = async {
            let connect = || TcpStream::connect(address);
            let (mut first, second) = (connect().await.unwrap(), connect().await.unwrap());
            let mut third = connect().await.unwrap();
            assert_eq!(third.read(&mut [0]).await.unwrap_or(0), 0, "it is closed");
            let shown = || service.metrics.encode().contains("test_connections 2");
            assert!(shown());
            drop(second);
            while shown() {
                tokio::task::yield_now().await;
            }
            let mut fourth = connect().await.unwrap();
            for stream in [&mut first, &mut fourth] {
                stream.write_all(b"a").await.unwrap();
                let mut read = [0];
                stream.read_exact(&mut read).await.unwrap();
                assert_eq!(&read, b"a");
            }
            service.drain.request();
        };
        tokio::join!(accepting, knocking);
    }

    #[tokio::test]
    async fn who_cannot_listen_is_told_what_to_set() {
        let taken = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = taken.local_addr().unwrap();
        let error = Listener::bind("tests", "test.listen", address).unwrap_err();
        let said = "(set test.listen, or PLATZIVERSE_TEST__LISTEN, to a free address)";
        assert!(error.to_string().ends_with(said), "{error}");
    }
}
