//! Accepts HTTP connections, and serves each until it ends, falls silent, or the process does.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::EXPECT;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use platziverse_service::{Drain, Service};
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tower_service::Service as _;

use crate::http::leftover::Lent;
use crate::http::paced::Paced;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 4_096;
/// How long nothing is accepted after an error, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take from one answer to the end of its next request's headers.
const HEADERS_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request's line and headers.
const HEADERS_BYTES_MAX: usize = 65_536;

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "listening for {what} on {address} (set mom.{setting}, or PLATZIVERSE_MOM__{}, to a free \
     address)",
    setting.to_uppercase()
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
    /// Opens the listener for `what`, whose address is the setting `mom.<setting>`.
    pub fn bind(
        what: &'static str,
        setting: &'static str,
        address: SocketAddr,
    ) -> Result<Self, ListenError> {
        let failed = |source| ListenError { what, setting, address, source };
        let socket = bind(address).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves HTTP/1 until the process is to end.
    pub async fn serve(self, router: Router, service: &Service) {
        let gauge = ("mom_http_connections", "HTTP connections");
        let (drain, farewell) = (service.drain.clone(), farewell(service));
        let converse =
            move |stream, peer| converse(stream, peer, router.clone(), drain.clone(), farewell);
        self.accept(service, gauge, converse).await;
    }

    /// Accepts until the process is to end. Each connection has a task of its own for what it is
    /// there for; beyond `mom.connections_max` they are closed at once. The gauge is a name and a
    /// sentence.
    pub(crate) async fn accept<F: Future<Output = ()> + Send + 'static>(
        self,
        service: &Service,
        gauge: (&'static str, &'static str),
        converse: impl Fn(TcpStream, Peer) -> F,
    ) {
        let doors = Arc::new(Doors::new(service, gauge));
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

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How long a connection goes on when the process is to end: a client that takes its time for a
/// request must not make the end a forced one.
pub(crate) fn farewell(service: &Service) -> Duration {
    service.settings.ops.drain_timeout.mul_f32(0.75)
}

/// Serves one connection.
async fn converse(stream: TcpStream, peer: Peer, router: Router, drain: Drain, farewell: Duration) {
    let answering = service_fn(move |request: Request<Incoming>| {
        let waits = request.headers().contains_key(EXPECT);
        let (parts, body) = request.into_parts();
        let lent = Lent::new(body);
        let mut request = Request::from_parts(parts, Body::new(lent.clone()));
        request.extensions_mut().insert(peer);
        // A router is always ready.
        let answering = router.clone().call(request);
        async move {
            let answer = answering.await;
            lent.discard(waits).await;
            answer
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_PATIENCE)
        .max_buf_size(HEADERS_BYTES_MAX);
    let stream = TokioIo::new(Paced::new(stream));
    let mut connection = pin!(builder.serve_connection(stream, answering));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.requested() => {
            connection.as_mut().graceful_shutdown();
            timeout(farewell, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %peer.0, "a connection broke off: {error}");
    }
}

/// How many connections there may be, and are.
struct Doors {
    most: usize,
    open: AtomicUsize,
    shown: Gauge,
}

impl Doors {
    fn new(service: &Service, (name, help): (&'static str, &'static str)) -> Self {
        let shown = Gauge::default();
        service.metrics.register(|registry| registry.register(name, help, shown.clone()));
        Self { most: service.settings.mom.connections_max, open: AtomicUsize::new(0), shown }
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
