//! MQTT clients that are not ours: thin wrappers around rumqttc, the same for 3.1.1 and 5.

mod book;
mod v3;
mod v5;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

pub use book::{Ack, Closed, Heard, Pending};
pub use rumqttc::QoS;

use book::{Book, Entry};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::PATIENCE;

/// The largest packet that the clients send or take, in bytes.
const PACKET_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.
    V5,
}

impl Version {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V3, Self::V5];
}

/// How a client connects.
#[derive(Clone, Debug)]
pub struct Options {
    /// The gateway.
    pub address: SocketAddr,
    /// 3.1.1 or 5.
    pub version: Version,
    /// The client identifier.
    pub id: String,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// The keep-alive; at least 5 s.
    pub keep_alive: Duration,
    /// How many QoS 1 and 2 publishes are in flight at most.
    pub window: u16,
    /// Whether only [`Client::acknowledge`] answers what is heard at QoS 1 or 2.
    pub acks_by_hand: bool,
}

impl Options {
    /// A client with a new client identifier and no credentials.
    pub fn new(address: SocketAddr, version: Version) -> Self {
        let id = format!("test-{:016x}", fastrand::u64(..));
        let keep_alive = Duration::from_secs(10);
        let (credentials, window, acks_by_hand) = (None, 100, false);
        Self { address, version, id, credentials, keep_alive, window, acks_by_hand }
    }

    /// With this client identifier.
    pub fn id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    /// With a user name and a password.
    pub fn credentials(mut self, username: &str, password: &str) -> Self {
        self.credentials = Some((username.to_owned(), password.to_owned()));
        self
    }
}

/// The events of rumqttc, whose types are others for each version.
trait Events {
    /// The next one, if the book is about it; an error is the connection's end.
    async fn next(&mut self) -> Result<Option<Entry>, Closed>;
}

/// Moves packets until the connection ends.
async fn pump(mut events: impl Events, book: Book) {
    loop {
        match events.next().await {
            Ok(Some(entry)) => book.enter(entry),
            Ok(None) => {}
            Err(closed) => return book.enter(Entry::Closed(closed)),
        }
    }
}

enum Sender {
    V3(rumqttc::AsyncClient),
    V5(rumqttc::v5::AsyncClient),
}

/// A connected client. It does not connect again by itself. Dropped, it is gone without a goodbye.
pub struct Client {
    version: Version,
    id: String,
    sender: Sender,
    book: Book,
    // Requests must enter the book in the order in which they enter the client.
    order: tokio::sync::Mutex<()>,
    pump: JoinHandle<()>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("version", &self.version).field("id", &self.id).finish()
    }
}

impl Client {
    /// Connects, and answers when the gateway has accepted or refused.
    pub async fn connect(options: Options) -> Result<Self, Closed> {
        let client = Self::open(options);
        match timeout(PATIENCE, client.book.connected()).await {
            Ok(connected) => connected.map(|()| client),
            Err(_) => panic!("no CONNACK within {PATIENCE:?}"),
        }
    }

    /// The same; no answer within `within` is an error, too.
    pub async fn try_connect(options: Options, within: Duration) -> Result<Self, Closed> {
        let client = Self::open(options);
        match timeout(within, client.book.connected()).await {
            Ok(connected) => connected.map(|()| client),
            Err(_) => Err(Closed { code: None, text: format!("no CONNACK within {within:?}") }),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a test has no drain; the drop ends the task")]
    fn open(options: Options) -> Self {
        let book = Book::default();
        let (version, id) = (options.version, options.id.clone());
        let (sender, pump) = match version {
            Version::V3 => {
                let (client, events) = v3::open(&options);
                (Sender::V3(client), tokio::spawn(pump(events, book.clone())))
            }
            Version::V5 => {
                let (client, events) = v5::open(&options);
                (Sender::V5(client), tokio::spawn(pump(events, book.clone())))
            }
        };
        let order = tokio::sync::Mutex::new(());
        Self { version, id, sender, book, order, pump }
    }

    /// The client identifier.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Publishes, and waits for the acknowledgement: PUBACK for QoS 1, PUBCOMP (or a refusing
    /// PUBREC) for QoS 2, nothing for QoS 0.
    pub async fn publish(&self, topic: &str, qos: QoS, payload: impl Into<Vec<u8>>) -> Ack {
        let pending = self.send(topic, qos, payload).await;
        pending.acknowledged().await.unwrap_or_else(|closed| {
            panic!("publishing to {topic} at {qos:?}: {closed}");
        })
    }

    /// Publishes `agent/message` at QoS 1; fails the test unless it is accepted.
    pub async fn report(&self, message: &crate::Message) {
        let ack = self.publish("agent/message", QoS::AtLeastOnce, message.json()).await;
        assert_eq!(ack.code, 0, "{ack:?}");
    }

    /// Publishes without waiting for the acknowledgement, only for room in the window.
    pub async fn send(&self, topic: &str, qos: QoS, payload: impl Into<Vec<u8>>) -> Pending {
        self.send_with(topic, qos, false, payload).await
    }

    /// The same, and perhaps asks for the message to be retained.
    pub async fn send_with(
        &self,
        topic: &str,
        qos: QoS,
        retain: bool,
        payload: impl Into<Vec<u8>>,
    ) -> Pending {
        let _order = self.order.lock().await;
        let pending = self.book.sending();
        let payload = payload.into();
        // If the client has gone, the book answers the pending one.
        let _ = match &self.sender {
            Sender::V3(client) => client.publish(topic, qos, retain, payload).await.is_ok(),
            Sender::V5(client) => {
                let qos = v5::qos(qos);
                client.publish(topic, qos, retain, payload).await.is_ok()
            }
        };
        pending
    }

    /// Subscribes to one filter; the answer's codes, 0x80 and above for a refusal.
    pub async fn subscribe(&self, filter: &str, qos: QoS) -> Vec<u8> {
        let answer = self.try_subscribe(filter, qos, PATIENCE).await;
        answer.unwrap_or_else(|why| panic!("subscribing to {filter}: {why}"))
    }

    /// The same, or why there is no answer.
    pub async fn try_subscribe(
        &self,
        filter: &str,
        qos: QoS,
        within: Duration,
    ) -> Result<Vec<u8>, String> {
        let answer = {
            let _order = self.order.lock().await;
            let answer = self.book.subscribing();
            // If the client has gone, the book answers.
            let _ = match &self.sender {
                Sender::V3(client) => client.subscribe(filter, qos).await.is_ok(),
                Sender::V5(client) => client.subscribe(filter, v5::qos(qos)).await.is_ok(),
            };
            answer
        };
        match timeout(within, answer).await {
            Ok(Ok(codes)) => Ok(codes),
            Ok(Err(_)) => Err("the connection has ended".to_owned()),
            Err(_) => Err(format!("no SUBACK within {within:?}")),
        }
    }

    /// Ends a subscription, without waiting for the answer.
    pub async fn unsubscribe(&self, filter: &str) {
        let _order = self.order.lock().await;
        // If the client has gone, there is nothing to end.
        let _ = match &self.sender {
            Sender::V3(client) => client.unsubscribe(filter).await.is_ok(),
            Sender::V5(client) => client.unsubscribe(filter).await.is_ok(),
        };
    }

    /// The next message that it hears.
    pub async fn next(&self) -> Heard {
        match timeout(PATIENCE, self.book.next()).await {
            Ok(Ok(heard)) => heard,
            Ok(Err(closed)) => panic!("{}: waiting for a message: {closed}", self.id),
            Err(_) => panic!("{}: no message within {PATIENCE:?}", self.id),
        }
    }

    /// The next message, if one comes within `time`.
    pub async fn next_within(&self, time: Duration) -> Option<Heard> {
        timeout(time, self.book.next()).await.ok()?.ok()
    }

    /// Acknowledges a message of QoS 1, if the options say that nobody else does.
    pub async fn acknowledge(&self, heard: &Heard) {
        // If the client has gone, there is nobody to tell.
        let _ = match &self.sender {
            Sender::V3(client) => client.ack(&v3::acked(heard.packet)).await.is_ok(),
            Sender::V5(client) => client.ack(&v5::acked(heard.packet)).await.is_ok(),
        };
    }

    /// Waits until the connection has ended: why.
    pub async fn closed(&self) -> Closed {
        let closed = timeout(PATIENCE, self.book.closed()).await;
        closed.unwrap_or_else(|_| panic!("{}: still connected after {PATIENCE:?}", self.id))
    }

    /// Why the connection has ended, if it has.
    pub fn is_closed(&self) -> Option<Closed> {
        self.book.is_closed()
    }

    /// Says goodbye (DISCONNECT) and ends.
    pub async fn disconnect(self) {
        let _order = self.order.lock().await;
        // If the client has gone, there is nobody to say goodbye to.
        let _ = match &self.sender {
            Sender::V3(client) => client.disconnect().await.is_ok(),
            Sender::V5(client) => client.disconnect().await.is_ok(),
        };
        let ended = timeout(PATIENCE, self.book.closed()).await;
        assert!(ended.is_ok(), "{}: the gateway did not close after DISCONNECT", self.id);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.pump.abort();
    }
}
