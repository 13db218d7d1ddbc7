//! A WebSocket client of an aggregator.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::PATIENCE;

/// The version of the packets that is asked for.
const PROTOCOL: &str = "platziverse.v1";

/// How a client connects.
#[derive(Clone, Debug)]
pub struct WsOptions {
    address: SocketAddr,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    protocols: Vec<String>,
}

impl WsOptions {
    /// To the aggregator that listens there, with the subprotocol `platziverse.v1` and nothing else.
    pub fn new(address: SocketAddr) -> Self {
        let protocols = vec![PROTOCOL.to_owned()];
        Self { address, query: Vec::new(), headers: Vec::new(), protocols }
    }

    /// As a client of that id.
    #[must_use]
    pub fn client(self, id: &str) -> Self {
        self.with_query("client", id)
    }

    /// With a token, in the header `Authorization`.
    #[must_use]
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// With a token, as a browser sends it: as a subprotocol.
    #[must_use]
    pub fn browser_token(mut self, token: &str) -> Self {
        self.protocols.push(format!("bearer.{token}"));
        self
    }

    /// To go on with the session of that resume token.
    #[must_use]
    pub fn resume(self, token: &str) -> Self {
        self.with_query("resume", token)
    }

    /// With the last offset that the client has of each source.
    #[must_use]
    pub fn offsets<'a>(self, offsets: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        let all = offsets.into_iter().map(|(source, offset)| format!("{source}:{offset}"));
        let all = all.collect::<Vec<_>>().join(",");
        if all.is_empty() { self } else { self.with_query("offsets", &all) }
    }

    /// As from a page of that origin.
    #[must_use]
    pub fn origin(self, origin: &str) -> Self {
        self.header("origin", origin)
    }

    /// With these subprotocols, instead of `platziverse.v1`.
    #[must_use]
    pub fn protocols(mut self, protocols: &[&str]) -> Self {
        self.protocols = protocols.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// With one more parameter. Its value must need no escaping.
    #[must_use]
    pub fn with_query(mut self, name: &'static str, value: &str) -> Self {
        self.query.push((name, value.to_owned()));
        self
    }

    fn request(&self) -> Request {
        let query: Vec<_> =
            self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut url = format!("ws://{}/ws", self.address);
        if !query.is_empty() {
            url.push('?');
            url.push_str(&query.join("&"));
        }
        let mut request =
            url.as_str().into_client_request().unwrap_or_else(|error| panic!("{url}: {error}"));
        let value = |text: &str| {
            HeaderValue::from_str(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
        };
        if !self.protocols.is_empty() {
            let protocols = value(&self.protocols.join(", "));
            request.headers_mut().insert("sec-websocket-protocol", protocols);
        }
        for (name, text) in &self.headers {
            request.headers_mut().insert(*name, value(text));
        }
        request
    }
}

/// Why a client was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsRefused {
    /// The HTTP status; 0 if there was none.
    pub status: u16,
    /// What came with it, or what went wrong.
    pub text: String,
}

impl fmt::Display for WsRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.text)
    }
}

/// How a WebSocket ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WsClosed {
    /// The close code; 1006 if there was none.
    pub code: u16,
    /// The reason, or what went wrong.
    pub reason: String,
}

impl WsClosed {
    const ABNORMAL: u16 = 1006;

    fn of(frame: Option<CloseFrame>) -> Self {
        match frame {
            Some(frame) => Self { code: frame.code.into(), reason: frame.reason.to_string() },
            None => Self { code: 1005, reason: "no close code".to_owned() },
        }
    }

    fn broken(why: impl ToString) -> Self {
        Self { code: Self::ABNORMAL, reason: why.to_string() }
    }
}

/// A WebSocket to an aggregator. Dropped, its connection closes without a word.
#[derive(Debug)]
pub struct WsClient {
    socket: WebSocketStream<TcpStream>,
    protocol: Option<String>,
}

impl WsClient {
    /// Connects. Fails the test if it is refused.
    pub async fn connect(options: WsOptions) -> Self {
        Self::try_connect(options).await.unwrap_or_else(|refused| panic!("refused: {refused}"))
    }

    /// Connects, or says why not.
    pub async fn try_connect(options: WsOptions) -> Result<Self, WsRefused> {
        let connecting = async {
            let stream = TcpStream::connect(options.address).await?;
            stream.set_nodelay(true)?;
            client_async(options.request(), stream).await
        };
        match timeout(PATIENCE, connecting).await {
            Ok(Ok((socket, response))) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                let protocol = protocol.and_then(|name| name.to_str().ok()).map(str::to_owned);
                Ok(Self { socket, protocol })
            }
            Ok(Err(tungstenite::Error::Http(response))) => {
                let text = response.body().as_deref().unwrap_or_default();
                let text = String::from_utf8_lossy(text).into_owned();
                Err(WsRefused { status: response.status().as_u16(), text })
            }
            Ok(Err(error)) => Err(WsRefused { status: 0, text: error.to_string() }),
            Err(_) => Err(WsRefused { status: 0, text: format!("no answer within {PATIENCE:?}") }),
        }
    }

    /// The subprotocol that the aggregator has chosen.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Sends a packet. Fails the test if it cannot be sent.
    pub async fn send(&mut self, packet: Value) {
        self.send_raw(Message::text(packet.to_string())).await;
    }

    /// Sends a frame of any kind. Fails the test if it cannot be sent.
    pub async fn send_raw(&mut self, frame: Message) {
        self.try_send(frame).await.unwrap_or_else(|closed| panic!("sending: {closed:?}"));
    }

    /// The same, or how the WebSocket has ended.
    pub async fn try_send(&mut self, frame: Message) -> Result<(), WsClosed> {
        match timeout(PATIENCE, self.socket.send(frame)).await {
            Ok(sent) => sent.map_err(WsClosed::broken),
            Err(_) => Err(WsClosed::broken(format!("not sent within {PATIENCE:?}"))),
        }
    }

    /// The next packet. Fails the test if none comes.
    pub async fn receive(&mut self) -> Value {
        match self.try_receive(PATIENCE).await {
            Ok(Some(packet)) => packet,
            Ok(None) => panic!("no packet within {PATIENCE:?}"),
            Err(closed) => panic!("no packet: {closed:?}"),
        }
    }

    /// The next packet if one comes within that time, or how the WebSocket has ended.
    pub async fn try_receive(&mut self, within: Duration) -> Result<Option<Value>, WsClosed> {
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(frame) = timeout(left, self.socket.next()).await else { return Ok(None) };
            match frame {
                Some(Ok(Message::Text(text))) => {
                    let packet = serde_json::from_str::<Value>(&text);
                    return Ok(Some(packet.unwrap_or_else(|error| panic!("{error}: {text}"))));
                }
                Some(Ok(Message::Close(frame))) => return Err(WsClosed::of(frame)),
                Some(Ok(Message::Binary(bytes))) => panic!("a binary frame: {bytes:?}"),
                // Pings are answered by reading on.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(WsClosed::broken(error)),
                None => return Err(WsClosed::broken("the connection is closed")),
            }
        }
    }

    /// The next packet, which must have this `packet_action`. Pings are passed over.
    pub async fn expect(&mut self, action: &str) -> Value {
        loop {
            let packet = self.receive().await;
            if packet["packet_action"] == action {
                return packet;
            }
            assert_eq!(packet["packet_action"], "ping", "not {action}: {packet}");
        }
    }

    /// Sends a packet and waits for its receipt, passing over what else comes. Fails the test if
    /// there is an error instead.
    pub async fn done(&mut self, packet: Value) -> Value {
        let id = packet["id"].clone();
        assert!(id.is_string(), "without an id there is no receipt: {packet}");
        self.send(packet).await;
        loop {
            let answer = self.receive().await;
            if answer["id"] == id {
                assert_eq!(answer["packet_action"], "receipt", "{answer}");
                return answer;
            }
        }
    }

    /// Fails the test if a packet comes within that time.
    pub async fn hears_nothing(&mut self, within: Duration) {
        match self.try_receive(within).await {
            Ok(None) => {}
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the end, passing over packets.
    pub async fn closed(&mut self) -> WsClosed {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.try_receive(end.saturating_duration_since(Instant::now())).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("not closed within {PATIENCE:?}"),
                Err(closed) => return closed,
            }
        }
    }

    /// Closes in order, and waits for the other side to do so.
    pub async fn close(mut self) -> WsClosed {
        match self.try_send(Message::Close(None)).await {
            Ok(()) => self.closed().await,
            Err(closed) => closed,
        }
    }
}
