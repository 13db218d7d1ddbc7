//! One HTTP/2 connection: until it ends, falls silent, or the process does.

use std::io::{Cursor, Result};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use platziverse_service::listener::Peer;
use platziverse_service::{Drain, Paced};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, join, split};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::grpc::call::Calls;

/// The length of what every HTTP/2 client says first (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// How long it may take to.
const PREFACE_PATIENCE: Duration = Duration::from_secs(10);
/// A client that sends nothing for so long is asked whether it is there,
const PING_EVERY: Duration = Duration::from_secs(15);
/// and has so long to answer.
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// Calls at a time: one for each waiting consumer.
const STREAMS_MAX: u32 = 4_096;
/// Bytes that a client may send ahead, of one call and of all.
const STREAM_WINDOW: u32 = 256 * 1_024;
const CONNECTION_WINDOW: u32 = 1_024 * 1_024;
/// Bytes of one call's answer that wait for the client to read.
const SEND_BUFFER: usize = 128 * 1_024;

/// Spawns what a connection does beside itself.
#[derive(Clone)]
struct OnDrain(Drain);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for OnDrain {
    fn execute(&self, task: F) {
        self.0.spawn_isolated(task);
    }
}

/// Serves one connection.
pub(super) async fn converse(stream: TcpStream, peer: Peer, calls: Arc<Calls>) {
    let (drain, farewell) = (calls.drain().clone(), calls.farewell());
    let greeted = tokio::select! {
        greeted = timeout(PREFACE_PATIENCE, greeted(Paced::new(stream))) => greeted,
        () = drain.requested() => return,
    };
    let Ok(Ok(stream)) = greeted else { return };
    let answering = service_fn(move |request: Request<Incoming>| {
        let calls = Arc::clone(&calls);
        async move { calls.answer(peer, request).await }
    });
    let mut builder = http2::Builder::new(OnDrain(drain.clone()));
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_PATIENCE)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answering));
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

/// The stream of a client that has begun to speak: whoever is silent from the start is asked nothing
/// by HTTP/2, and would be waited for without end.
async fn greeted<S: AsyncRead + AsyncWrite>(
    stream: S,
) -> Result<impl AsyncRead + AsyncWrite + Unpin> {
    let (mut reader, writer) = split(stream);
    let mut preface = [0; PREFACE_BYTES];
    reader.read_exact(&mut preface).await?;
    Ok(join(Cursor::new(preface).chain(reader), writer))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn what_was_read_is_read_again() {
        let (mut near, far) = duplex(100);
        near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore").await.unwrap();
        drop(near);
        let mut read = Vec::new();
        greeted(far).await.unwrap().read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore");
        let (mut near, far) = duplex(100);
        near.write_all(b"PRI").await.unwrap();
        drop(near);
        assert!(greeted(far).await.is_err());
    }
}
