//! One WebSocket between a client and every service behind the broker.
//!
//! Clients hold a WebSocket; servers do their work from RabbitMQ's queues and never see a socket. What
//! is sent to clients goes through a stream for each channel, which every aggregator reads: so a client
//! that comes back, to whichever of them, gets what it missed.

pub mod auth;
pub mod channel;
pub mod claims;
pub mod core;
pub mod doors;
mod feed;
pub mod frame;
pub mod hub;
pub mod log;
pub mod mailbox;
pub mod markers;
pub mod metrics;
pub mod outbox;
pub mod pace;
pub mod packet;
pub mod page;
pub mod presence;
pub mod requests;
pub mod resume;
mod server;
mod session;

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use platziverse_service::listener::{ListenError, Listener, Peer};
use platziverse_service::{Drain, Service};
use tokio::net::TcpStream;
use tower_service::Service as _;

use crate::core::{Core, CoreError};

/// How long a client may take to say what it wants.
const HEADERS_PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of a request's line and headers.
const HEADERS_BYTES_MAX: usize = 32_768;
/// How long a request that is no WebSocket may take when the process ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Connections beyond the WebSockets: those that have not yet said what they want, and pages.
const CONNECTIONS_MORE: usize = 1_000;

/// Why an aggregator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AggregatorError {
    /// What it is nothing without.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// Its port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Runs an aggregator until it is asked to end.
pub async fn run(service: Service) -> Result<(), AggregatorError> {
    let settings = &service.settings.aggregator;
    let connections = settings.sockets_max.saturating_add(CONNECTIONS_MORE);
    let listener = Listener::bind("WebSockets", "aggregator.listen", settings.listen)?;
    let core = Core::start(&service).await?;
    announce(&service, &listener);
    let router = server::router(core);
    service.ready();
    let drain = service.drain.clone();
    let gauge = ("aggregator_http_connections", "HTTP connections that are no WebSocket");
    let converse = move |stream, peer| converse(stream, peer, router.clone(), drain.clone());
    listener.accept(&service, gauge, connections, converse).await;
    Ok(())
}

/// Says what this aggregator does, and where.
fn announce(service: &Service, listener: &Listener) {
    let settings = &service.settings;
    let websocket = format!("ws://{}/ws", listener.address());
    let page = format!("http://{}", listener.address());
    let (broker, channels) = (settings.amqp.address(), settings.aggregator.channels.join(", "));
    let facts = [
        ("websocket", websocket.clone()),
        ("page", page.clone()),
        ("channels", channels.clone()),
        ("broker", broker.clone()),
    ];
    if !service.show_banner(&facts) {
        tracing::info!(websocket, page, channels, broker, "what this aggregator does");
    }
}

/// Serves one connection until it ends, or becomes a WebSocket.
async fn converse(stream: TcpStream, peer: Peer, router: Router, drain: Drain) {
    let answering = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        // A router is always ready.
        router.clone().call(request)
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_PATIENCE)
        .max_buf_size(HEADERS_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), answering).with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.requested() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %peer.0, "a connection broke off: {error}");
    }
}
