//! One request after the other over one connection.

use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::words;

/// Where requests go, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(super) address: SocketAddr,
    pub(super) host: HeaderValue,
    pub(super) authorization: HeaderValue,
}

/// Somebody who asks over an open connection.
pub(crate) struct Asking {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
}

/// What a server said.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
    /// Whether the server closes the connection now.
    pub(crate) is_last: bool,
}

impl Answer {
    /// Fails on another status.
    pub(crate) fn is(&self, status: u16) -> Result<(), String> {
        if self.status == status {
            return Ok(());
        }
        Err(format!("HTTP {}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

impl Asking {
    /// One request and the whole answer.
    pub(crate) async fn post(&mut self, path: &str, body: Bytes) -> Result<Answer, String> {
        let request = Request::post(path)
            .header(HOST, &self.target.host)
            .header(AUTHORIZATION, &self.target.authorization)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(body));
        self.sender.ready().await.map_err(words)?;
        let answer = self.sender.send_request(request.map_err(words)?).await.map_err(words)?;
        let is_last = answer.headers().get(CONNECTION).is_some_and(|value| value == "close");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(words)?.to_bytes();
        Ok(Answer { status, body, is_last })
    }
}

/// Opens a connection for whoever asks over it; it closes when that one is done. It is read and
/// written by the same task.
pub(crate) async fn converse<F: Future<Output = Result<(), String>>>(
    target: Target,
    ask: impl FnOnce(Asking) -> F,
) -> Result<(), String> {
    let stream = TcpStream::connect(target.address).await.map_err(words)?;
    stream.set_nodelay(true).map_err(words)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let mut asking = pin!(ask(Asking { sender, target }));
    tokio::select! {
        biased;
        done = &mut asking => done,
        ended = connection => match ended {
            Ok(()) => asking.await,
            Err(error) => Err(error.to_string()),
        },
    }
}
