//! Serves each HTTP connection until it ends, falls silent, or the process does.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::EXPECT;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use platziverse_service::listener::{Listener, Peer};
use platziverse_service::{Drain, Paced, Service};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service as _;

use crate::http::leftover::Lent;

/// How long a client may take from one answer to the end of its next request's headers.
const HEADERS_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a request's line and headers.
const HEADERS_BYTES_MAX: usize = 65_536;

/// Serves HTTP/1 until the process is to end.
pub async fn serve(listener: Listener, router: Router, service: &Service) {
    let gauge = ("mom_http_connections", "HTTP connections");
    let (drain, farewell) = (service.drain.clone(), farewell(service));
    let converse =
        move |stream, peer| converse(stream, peer, router.clone(), drain.clone(), farewell);
    listener.accept(service, gauge, service.settings.mom.connections_max, converse).await;
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
