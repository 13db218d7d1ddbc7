//! A WebSocket with deadlines.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::SinkExt;
use tokio::time::{Instant, timeout};

use super::close::Close;

/// A client that takes nothing for so long is gone, or as good as gone.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the other side may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(2);
/// Without anything from the client for so long, it is asked whether it is there.
pub(super) const PING_AFTER: Duration = Duration::from_secs(20);
/// Without anything from the client for so long, it is gone.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(45);

/// What a client sent.
pub(super) enum Heard {
    /// A packet.
    Packet(Utf8Bytes),
    /// Something that is no packet.
    Binary,
    /// A sign of life.
    Life,
    /// The end of the conversation.
    Closed,
    /// More than a packet may have.
    TooLarge,
}

/// A WebSocket, and when something came over it.
pub(super) struct Wire {
    socket: WebSocket,
    heard: Instant,
    pinged: bool,
}

impl Wire {
    pub(super) fn new(socket: WebSocket) -> Self {
        Self { socket, heard: Instant::now(), pinged: false }
    }

    /// What the client says next. Cancel safe.
    pub(super) async fn hear(&mut self) -> Heard {
        let heard = match self.socket.recv().await {
            Some(Ok(Message::Text(text))) => Heard::Packet(text),
            Some(Ok(Message::Binary(_))) => Heard::Binary,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Heard::Life,
            Some(Ok(Message::Close(_))) | None => return Heard::Closed,
            Some(Err(error)) => {
                let error = error.into_inner();
                let is_capacity = error.to_string().contains("Space limit exceeded");
                return if is_capacity { Heard::TooLarge } else { Heard::Closed };
            }
        };
        self.heard = Instant::now();
        self.pinged = false;
        heard
    }

    /// Notes that the client is not read for now: its silence means nothing.
    pub(super) fn rest(&mut self) {
        self.heard = Instant::now();
        self.pinged = false;
    }

    /// When the client is to be asked whether it is there, or is taken to be gone.
    pub(super) fn next_check(&self) -> Instant {
        self.heard + if self.pinged { SILENCE_MAX } else { PING_AFTER }
    }

    /// Asks whether the client is there, if it is time; whether it may be.
    pub(super) async fn check(&mut self) -> Result<(), Close> {
        let silent = self.heard.elapsed();
        if silent >= SILENCE_MAX {
            return Err(Close::Gone);
        }
        if silent >= PING_AFTER && !self.pinged {
            self.pinged = true;
            self.put(Message::Ping(Default::default())).await?;
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes a packet.
    pub(super) async fn say(&mut self, packet: impl Into<Utf8Bytes>) -> Result<(), Close> {
        self.feed(packet.into()).await?;
        self.flush().await
    }

    /// Writes a packet together with those that follow until [`Wire::flush`].
    pub(super) async fn feed(&mut self, packet: Utf8Bytes) -> Result<(), Close> {
        self.put(Message::Text(packet)).await
    }

    async fn put(&mut self, message: Message) -> Result<(), Close> {
        written(self.socket.feed(message)).await
    }

    pub(super) async fn flush(&mut self) -> Result<(), Close> {
        written(self.socket.flush()).await
    }

    /// Says why the conversation ends, and waits a moment for the other side to hear it.
    pub(super) async fn close(mut self, code: u16, reason: String) {
        let frame = CloseFrame { code, reason: reason.into() };
        let closing = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_err() {
                return;
            }
            while let Some(Ok(_)) = self.socket.recv().await {}
        };
        // Who does not answer is left.
        let _ = timeout(FAREWELL, closing).await;
    }
}

async fn written(writing: impl Future<Output = Result<(), axum::Error>>) -> Result<(), Close> {
    match timeout(WRITE_TIMEOUT, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Close::Gone),
        Err(_) => Err(Close::TooSlow),
    }
}
