//! One WebSocket of a client.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::dialect::{Dialect, Heard, To};
use crate::mom::words;

/// Bytes that are read at a time: thousands of sockets are cheap.
const READ_BYTES: usize = 4_096;
/// How long a server may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where clients connect, and what they speak there.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) dialect: Dialect,
}

/// An open one.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    dialect: Dialect,
    client: String,
}

impl Target {
    /// Connects a client.
    pub(crate) async fn connect(&self, client: &str) -> Result<Socket, String> {
        within(self.open(client)).await
    }

    /// Connects a client that takes these channels.
    pub(crate) async fn listen(&self, client: &str, channels: &[usize]) -> Result<Socket, String> {
        let mut socket = self.connect(client).await?;
        for channel in channels {
            within(socket.subscribe(*channel)).await?;
        }
        Ok(socket)
    }

    async fn open(&self, client: &str) -> Result<Socket, String> {
        let (path, protocol) = self.dialect.address(client);
        let url = format!("ws://{}{path}", self.address);
        let mut request = url.into_client_request().map_err(words)?;
        let protocol = HeaderValue::from_static(protocol);
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let stream = TcpStream::connect(self.address).await.map_err(words)?;
        stream.set_nodelay(true).map_err(words)?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BYTES);
        let opened = client_async_with_config(request, stream, Some(config)).await;
        let (stream, _) = opened.map_err(words)?;
        let (dialect, client) = (self.dialect.clone(), client.to_owned());
        let mut socket = Socket { stream, dialect, client };
        if let Some(greeting) = self.dialect.greeting() {
            socket.feed(greeting.to_owned()).await?;
            socket.flush().await?;
        }
        match socket.hear().await? {
            Heard::Other => Ok(socket),
            heard => Err(format!("{heard:?} is no welcome")),
        }
    }
}

impl Socket {
    async fn subscribe(&mut self, channel: usize) -> Result<(), String> {
        for text in self.dialect.subscribe(&self.client, channel) {
            self.feed(text).await?;
        }
        self.flush().await?;
        while self.hear().await? != Heard::Receipt(channel as u64) {}
        Ok(())
    }

    /// Publishes the message of a number.
    pub(crate) async fn publish(&mut self, to: To<'_>, number: u64) -> Result<(), String> {
        let text = self.dialect.publish(to, number);
        self.feed(text).await
    }

    /// Sends a request.
    pub(crate) async fn request(&mut self, number: u64) -> Result<(), String> {
        self.feed(Dialect::request(number)).await?;
        self.flush().await
    }

    async fn feed(&mut self, text: String) -> Result<(), String> {
        self.stream.feed(Message::text(text)).await.map_err(words)
    }

    /// Has all that was said leave.
    pub(crate) async fn flush(&mut self) -> Result<(), String> {
        self.stream.flush().await.map_err(words)
    }

    /// What the server says next. Cancel safe.
    pub(crate) async fn hear(&mut self) -> Result<Heard, String> {
        loop {
            let text = match self.stream.next().await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Binary(bytes))) => Utf8Bytes::try_from(bytes).map_err(words)?,
                Some(Ok(Message::Close(why))) => return Err(format!("it was closed: {why:?}")),
                // Pings are answered by reading on.
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the connection is closed".to_owned()),
            };
            return self.dialect.read(&text);
        }
    }
}

async fn within<T>(doing: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let done = timeout(PATIENCE, doing).await;
    done.unwrap_or_else(|_| Err(format!("there was no answer within {PATIENCE:?}")))
}
