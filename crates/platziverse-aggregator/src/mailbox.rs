//! Where a session's messages wait, between those who send them and the socket.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::outbox::{Dropped, Frame, Outbox, OutboxLimits};

/// Why a session is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The client reads too slowly.
    TooSlow,
    /// The client goes on with this session over another socket.
    TakenOver,
    /// RabbitMQ has dropped what this aggregator has not read: the client is to come back and be told.
    Behind,
}

/// What happened to a mailbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Mail {
    /// The next message.
    Frame(Arc<Frame>),
    /// Messages fell out, since there was no room.
    Dropped(Dropped),
    /// The session is to end.
    Evicted(Eviction),
}

/// The mailbox of one session.
#[derive(Debug)]
pub struct Mailbox {
    session: Uuid,
    client: Box<str>,
    inner: Mutex<Inner>,
    news: Notify,
    /// Beside `news`: who waits for the end only must not take what another one waits for.
    end: Notify,
}

#[derive(Debug)]
struct Inner {
    outbox: Outbox,
    evicted: Option<Eviction>,
}

impl Mailbox {
    /// An empty one.
    pub fn new(session: Uuid, client: &str, limits: OutboxLimits) -> Arc<Self> {
        let inner = Mutex::new(Inner { outbox: Outbox::new(limits), evicted: None });
        Arc::new(Self {
            session,
            client: client.into(),
            inner,
            news: Notify::new(),
            end: Notify::new(),
        })
    }

    /// Whose session it is.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// The session.
    pub fn session(&self) -> Uuid {
        self.session
    }

    /// Puts a message in.
    pub fn put(&self, frame: Arc<Frame>) {
        let mut inner = self.inner();
        if inner.evicted.is_none() && inner.outbox.push(frame).is_err() {
            inner.evicted = Some(Eviction::TooSlow);
            self.end.notify_one();
        }
        drop(inner);
        self.news.notify_one();
    }

    /// Has the session end.
    pub fn evict(&self, why: Eviction) {
        self.inner().evicted.get_or_insert(why);
        self.news.notify_one();
        self.end.notify_one();
    }

    /// What there is, once there is something. Cancel safe.
    pub async fn next(&self) -> Mail {
        loop {
            if let Some(mail) = self.try_next() {
                return mail;
            }
            self.news.notified().await;
        }
    }

    /// Resolves when the session is to end. Cancel safe.
    pub async fn evicted(&self) -> Eviction {
        loop {
            if let Some(why) = self.inner().evicted {
                return why;
            }
            self.end.notified().await;
        }
    }

    /// What there is now.
    pub fn try_next(&self) -> Option<Mail> {
        let mut inner = self.inner();
        if let Some(why) = inner.evicted {
            return Some(Mail::Evicted(why));
        }
        if let Some(dropped) = inner.outbox.dropped() {
            return Some(Mail::Dropped(dropped));
        }
        inner.outbox.pop().map(Mail::Frame)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is in it is whole after any panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{WhenFull, message};

    fn frame(offset: u64) -> Arc<Frame> {
        message(offset, "x")
    }

    fn mailbox(messages: usize, when_full: WhenFull) -> Arc<Mailbox> {
        Mailbox::new(Uuid::nil(), "ana", OutboxLimits { messages, bytes: 1_000, when_full })
    }

    #[tokio::test]
    async fn who_waits_is_told() {
        let mailbox = mailbox(10, WhenFull::Close);
        let put = async {
            tokio::task::yield_now().await;
            mailbox.put(frame(1));
        };
        let (mail, ()) = tokio::join!(mailbox.next(), put);
        assert_eq!(mail, Mail::Frame(frame(1)));
        assert_eq!(mailbox.try_next(), None);
    }

    #[tokio::test]
    async fn what_fell_out_is_said_before_what_is_left() {
        let mailbox = mailbox(1, WhenFull::DropOldest);
        mailbox.put(frame(1));
        mailbox.put(frame(2));
        assert_eq!(mailbox.next().await, Mail::Dropped(Dropped { messages: 1, bytes: 1 }));
        assert_eq!(mailbox.next().await, Mail::Frame(frame(2)));
    }

    #[tokio::test]
    async fn who_is_too_slow_ends() {
        let mailbox = mailbox(1, WhenFull::Close);
        mailbox.put(frame(1));
        mailbox.put(frame(2));
        mailbox.evict(Eviction::TakenOver);
        assert_eq!(mailbox.next().await, Mail::Evicted(Eviction::TooSlow));
    }
}
