//! A server that knows just enough of MQTT, and can be told to be a bad one.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use platziverse_load::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// How often a subscriber gets a publish, both numbered from 0; nothing to close its connection.
pub(crate) type Deliver = fn(subscriber: usize, publish: usize) -> Option<usize>;

/// What a connection is to write; nothing to close it.
type Outbound = UnboundedSender<Option<Vec<u8>>>;

/// A server on a port of its own. Dropping it closes all connections.
pub(crate) struct Broker {
    pub(crate) server: Server,
    _tasks: JoinSet<()>,
}

/// All subscribers are to the same topic, and whatever is published is on it.
struct Topic {
    deliver: Deliver,
    subscribers: Vec<Outbound>,
    published: usize,
}

impl Broker {
    pub(crate) async fn start(deliver: Deliver) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server { address: listener.local_addr().unwrap(), login: None };
        let topic = Topic { deliver, subscribers: Vec::new(), published: 0 };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::new(Mutex::new(topic))));
        Self { server, _tasks: tasks }
    }
}

async fn accept(listener: TcpListener, topic: Arc<Mutex<Topic>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&topic)));
    }
}

async fn serve(stream: TcpStream, topic: Arc<Mutex<Topic>>) {
    let (reader, writer) = stream.into_split();
    let (outbound, to_write) = unbounded_channel();
    // Either ends when the client has gone.
    let _ = tokio::select! {
        result = read(reader, &outbound, &topic) => result,
        result = write(writer, to_write) => result,
    };
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut outbound: UnboundedReceiver<Option<Vec<u8>>>,
) -> io::Result<()> {
    while let Some(Some(bytes)) = outbound.recv().await {
        writer.write_all(&bytes).await?;
    }
    Ok(())
}

async fn read(
    mut reader: OwnedReadHalf,
    outbound: &Outbound,
    topic: &Mutex<Topic>,
) -> io::Result<()> {
    loop {
        let (kind, body) = packet(&mut reader).await?;
        let answer = match kind >> 4 {
            1 => vec![0x20, 2, 0, 0],
            3 => {
                topic.lock().unwrap_or_else(PoisonError::into_inner).publish(kind, &body);
                let packet = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                vec![0x40, 2, body[packet], body[packet + 1]]
            }
            8 => {
                let subscribers =
                    &mut topic.lock().unwrap_or_else(PoisonError::into_inner).subscribers;
                subscribers.push(outbound.clone());
                vec![0x90, 3, body[0], body[1], body[body.len() - 1]]
            }
            12 => vec![0xD0, 0],
            14 => return Ok(()),
            _ => continue,
        };
        let _ = outbound.send(Some(answer));
    }
}

/// The first byte of the next packet, and its body of at most 16,383 bytes.
async fn packet(reader: &mut OwnedReadHalf) -> io::Result<(u8, Vec<u8>)> {
    let (kind, mut length) = (reader.read_u8().await?, usize::from(reader.read_u8().await?));
    if length >= 128 {
        length = length - 128 + 128 * usize::from(reader.read_u8().await?);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    Ok((kind, body))
}

impl Topic {
    fn publish(&mut self, kind: u8, body: &[u8]) {
        let mut packet = vec![kind, (body.len() % 128) as u8 | 0x80, (body.len() / 128) as u8];
        packet.extend_from_slice(body);
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            match (self.deliver)(number, self.published) {
                Some(count) => {
                    for _ in 0..count {
                        let _ = subscriber.send(Some(packet.clone()));
                    }
                }
                None => {
                    let _ = subscriber.send(None);
                }
            }
        }
        self.published += 1;
    }
}
