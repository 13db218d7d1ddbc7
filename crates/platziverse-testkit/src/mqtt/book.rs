//! What a client waits for, and who waits for it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::PATIENCE;

/// How a publish was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The reason code of MQTT 5; 0 in 3.1.1 and for QoS 0.
    pub code: u8,
    /// The reason string of MQTT 5.
    pub text: Option<String>,
}

/// A message that a subscriber heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its topic.
    pub topic: String,
    /// Its payload, as text.
    pub payload: String,
    /// The QoS of the delivery.
    pub qos: u8,
    /// Its packet identifier on this connection; 0 at QoS 0.
    pub packet: u16,
}

impl Heard {
    /// The payload as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.payload)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.topic, self.payload))
    }
}

/// Why a connection ended, or did not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The reason code of an MQTT 5 DISCONNECT, if there was one.
    pub code: Option<u8>,
    /// The reason in words: rumqttc's name for a refusal, the reason string, or what broke.
    pub text: String,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "disconnected with 0x{code:02X} ({})", self.text),
            None => write!(f, "disconnected ({})", self.text),
        }
    }
}

/// A publish whose acknowledgement is still to come.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Ack, Closed>>);

impl Pending {
    /// Waits for the acknowledgement, or for the end of the connection.
    pub async fn acknowledged(mut self) -> Result<Ack, Closed> {
        let answer = self.answer(PATIENCE * 2).await;
        answer.unwrap_or_else(|| panic!("no acknowledgement within {:?}", PATIENCE * 2))
    }

    /// The same; `None` if there is no answer within `within`, but there may be one later.
    pub async fn answer(&mut self, within: Duration) -> Option<Result<Ack, Closed>> {
        let gone = || Closed { code: None, text: "the client was dropped".into() };
        let answer = timeout(within, &mut self.0).await.ok()?;
        Some(answer.unwrap_or_else(|_| Err(gone())))
    }

    /// What has come so far, without waiting.
    pub fn so_far(&mut self) -> Option<Result<Ack, Closed>> {
        self.0.try_recv().ok()
    }
}

type Waiter = oneshot::Sender<Result<Ack, Closed>>;

#[derive(Default)]
struct Page {
    connected: bool,
    closed: Option<Closed>,
    /// Publishes that the client library has not yet written.
    sending: VecDeque<Waiter>,
    in_flight: HashMap<u16, Waiter>,
    subscribing: VecDeque<oneshot::Sender<Vec<u8>>>,
    heard: VecDeque<Heard>,
}

/// Shared by a client and the task that moves its packets.
#[derive(Clone, Default)]
pub(super) struct Book {
    page: Arc<Mutex<Page>>,
    changed: Arc<Notify>,
}

/// What the task tells the book.
pub(super) enum Entry {
    Connected,
    /// A publish was written with this packet identifier; 0 for QoS 0.
    Written(u16),
    Acknowledged(u16, Ack),
    Subscribed(Vec<u8>),
    Heard(Heard),
    Closed(Closed),
}

impl Book {
    fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, entry: Entry) {
        self.page().enter(entry);
        self.changed.notify_waiters();
    }

    pub(super) fn sending(&self) -> Pending {
        let (sender, receiver) = oneshot::channel();
        let mut page = self.page();
        match page.closed.clone() {
            Some(closed) => drop(sender.send(Err(closed))),
            None => page.sending.push_back(sender),
        }
        Pending(receiver)
    }

    pub(super) fn subscribing(&self) -> oneshot::Receiver<Vec<u8>> {
        let (sender, receiver) = oneshot::channel();
        let mut page = self.page();
        if page.closed.is_none() {
            page.subscribing.push_back(sender);
        }
        receiver
    }

    pub(super) async fn connected(&self) -> Result<(), Closed> {
        self.until(|page| match &page.closed {
            Some(closed) => Some(Err(closed.clone())),
            None => page.connected.then_some(Ok(())),
        })
        .await
    }

    pub(super) async fn next(&self) -> Result<Heard, Closed> {
        self.until(|page| match page.heard.pop_front() {
            Some(heard) => Some(Ok(heard)),
            None => page.closed.clone().map(Err),
        })
        .await
    }

    pub(super) async fn closed(&self) -> Closed {
        self.until(|page| page.closed.clone()).await
    }

    pub(super) fn is_closed(&self) -> Option<Closed> {
        self.page().closed.clone()
    }

    async fn until<T>(&self, mut found: impl FnMut(&mut Page) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Listens before it looks: a change in between would not be heard.
            changed.as_mut().enable();
            let found = found(&mut self.page());
            match found {
                Some(value) => return value,
                None => changed.await,
            }
        }
    }
}

impl Page {
    fn enter(&mut self, entry: Entry) {
        match entry {
            Entry::Connected => self.connected = true,
            Entry::Written(id) => self.written(id),
            Entry::Acknowledged(id, ack) => {
                if let Some(waiter) = self.in_flight.remove(&id) {
                    // Not every test waits for every acknowledgement.
                    let _ = waiter.send(Ok(ack));
                }
            }
            Entry::Subscribed(codes) => {
                if let Some(waiter) = self.subscribing.pop_front() {
                    let _ = waiter.send(codes);
                }
            }
            Entry::Heard(heard) => self.heard.push_back(heard),
            Entry::Closed(closed) => self.close(closed),
        }
    }

    fn written(&mut self, id: u16) {
        let Some(waiter) = self.sending.pop_front() else { return };
        if id == 0 {
            let _ = waiter.send(Ok(Ack { code: 0, text: None }));
        } else {
            self.in_flight.insert(id, waiter);
        }
    }

    fn close(&mut self, closed: Closed) {
        let waiters =
            self.sending.drain(..).chain(self.in_flight.drain().map(|(_, waiter)| waiter));
        for waiter in waiters {
            let _ = waiter.send(Err(closed.clone()));
        }
        self.subscribing.clear();
        self.closed = Some(closed);
    }
}
