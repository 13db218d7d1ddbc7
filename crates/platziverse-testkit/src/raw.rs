//! A client whose bytes are made by hand, for what no client library would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{PATIENCE, Version};

/// A TCP connection to a gateway.
#[derive(Debug)]
pub struct RawClient(TcpStream);

impl RawClient {
    /// Connects, and sends nothing.
    pub async fn open(address: SocketAddr) -> Self {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => Self(stream),
            Ok(Err(error)) => panic!("connecting to {address}: {error}"),
            Err(_) => panic!("connecting to {address}: no answer within {PATIENCE:?}"),
        }
    }

    /// Connects, sends a CONNECT without credentials and reads the CONNACK, which must accept.
    /// `keep_alive` is in seconds.
    pub async fn connect(address: SocketAddr, version: Version, id: &str, keep_alive: u16) -> Self {
        let mut client = Self::open(address).await;
        client.send(&connect(version, id, keep_alive)).await;
        let (kind, body) = client.packet().await;
        assert_eq!((kind, body.get(1)), (0x20, Some(&0)), "the CONNACK is {body:02X?}");
        client
    }

    /// Sends bytes; fails the test if the gateway does not take them.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap_or_else(|error| panic!("sending: {error}"));
    }

    /// Sends bytes, as far as the gateway takes them.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match timeout(PATIENCE, self.send_untimed(bytes)).await {
            Ok(written) => written,
            Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
        }
    }

    /// The same, however long the gateway lets the client wait: for who has a deadline of its own.
    pub async fn send_untimed(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// The next packet: its first byte, and what follows its length.
    pub async fn packet(&mut self) -> (u8, Vec<u8>) {
        match timeout(PATIENCE, self.packet_untimed()).await {
            Ok(Ok(packet)) => packet,
            Ok(Err(error)) => panic!("reading a packet: {error}"),
            Err(_) => panic!("no packet within {PATIENCE:?}"),
        }
    }

    /// The same, however long it takes: for who has a deadline of its own.
    pub async fn packet_untimed(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let kind = self.0.read_u8().await?;
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            let byte = self.0.read_u8().await?;
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok((kind, body))
    }

    /// Reads until the gateway closes: all that came before. An end by reset counts as an end.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        self.closed_within(PATIENCE).await.unwrap_or_else(|| {
            panic!("the gateway has not closed the connection within {PATIENCE:?}");
        })
    }

    /// The same, if the gateway closes within `time`.
    pub async fn closed_within(&mut self, time: Duration) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = timeout(time, self.0.read_to_end(&mut bytes)).await;
        read.is_ok().then_some(bytes)
    }

    /// Reads packets for `time` and answers none. It may end in mid-packet: nothing can be read
    /// after it.
    pub async fn receive_without_acks(&mut self, time: Duration) {
        let reading = async { while self.packet_untimed().await.is_ok() {} };
        // The end of the time is the end.
        let _ = timeout(time, reading).await;
    }

    /// Ends the connection with RST, as a crash of the machine's network would.
    pub fn reset(self) {
        // A connection that has ended already needs no reset.
        let _ = self.0.set_zero_linger();
    }

    /// A CONNECT without credentials, clean, with a keep-alive in seconds.
    pub fn connect_packet(version: Version, id: &str, keep_alive: u16) -> Vec<u8> {
        connect(version, id, keep_alive)
    }

    /// A PUBLISH with packet identifier `packet` at QoS 1, or at QoS 0 if it is 0.
    pub fn publish_packet(version: Version, topic: &str, packet: u16, payload: &[u8]) -> Vec<u8> {
        let mut body = text(topic);
        let mut kind = 0x30;
        if packet != 0 {
            kind |= 0x02;
            body.extend(packet.to_be_bytes());
        }
        if version == Version::V5 {
            body.push(0);
        }
        body.extend_from_slice(payload);
        framed(kind, &body)
    }

    /// A SUBSCRIBE to one filter.
    pub fn subscribe_packet(version: Version, packet: u16, filter: &str, qos: u8) -> Vec<u8> {
        let mut body = packet.to_be_bytes().to_vec();
        if version == Version::V5 {
            body.push(0);
        }
        body.extend(text(filter));
        body.push(qos);
        framed(0x82, &body)
    }

    /// Any packet: its first byte, its true length, its body.
    pub fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
        framed(kind, body)
    }
}

fn connect(version: Version, id: &str, keep_alive: u16) -> Vec<u8> {
    let mut body = text("MQTT");
    body.push(if version == Version::V5 { 5 } else { 4 });
    body.push(0x02);
    body.extend(keep_alive.to_be_bytes());
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(text(id));
    framed(0x10, &body)
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a text of at most 65535 bytes");
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    loop {
        let byte = u8::try_from(length % 128).expect("less than 128");
        length /= 128;
        packet.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}
