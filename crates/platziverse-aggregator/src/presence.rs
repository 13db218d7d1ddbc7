//! Which clients are here, told to the other aggregators by bindings of a queue.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use platziverse_broker::aggregator::Presence as News;
use platziverse_broker::{LiveHandle, LiveMessages};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::mailbox::{Eviction, Mailbox};

/// How long a client that comes waits until others know it.
const BIND_PATIENCE: Duration = Duration::from_secs(1);
/// How often those that do not come back are looked for.
const LEAVING_EVERY: Duration = Duration::from_secs(1);

/// The clients and sessions of this aggregator.
#[derive(Debug)]
pub struct Presence {
    handle: LiveHandle,
    window: Duration,
    away_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    clients: HashMap<Arc<str>, Stay>,
    /// Clients without a socket, by when they are given up.
    away: VecDeque<(Instant, Arc<str>)>,
    sessions: HashMap<Uuid, (Uuid, Weak<Mailbox>)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stay {
    sockets: usize,
    /// Until when the client is awaited, if it has no socket.
    until: Option<Instant>,
}

impl Presence {
    /// Nobody yet. Clients that have left are awaited for `window`, at most `away_max` of them.
    pub fn new(handle: LiveHandle, window: Duration, away_max: usize) -> Self {
        Self { handle, window, away_max, inner: Mutex::default() }
    }

    /// Notes a socket of a client, and waits a moment until the others know.
    pub async fn arrive(&self, client: &Arc<str>) {
        let is_new = {
            let mut inner = self.inner();
            let is_new = !inner.clients.contains_key(client);
            let stay = inner.clients.entry(Arc::clone(client)).or_default();
            stay.sockets += 1;
            stay.until = None;
            is_new
        };
        if is_new {
            let binding = self.handle.rebind(vec![client.to_string()], Vec::new());
            // Bound later, it is known later.
            let _ = timeout(BIND_PATIENCE, binding).await;
        }
    }

    /// Notes that a socket of a client is gone.
    pub fn leave(&self, client: &Arc<str>) {
        let mut inner = self.inner();
        let Some(stay) = inner.clients.get_mut(client) else { return };
        stay.sockets = stay.sockets.saturating_sub(1);
        if stay.sockets == 0 {
            let until = Instant::now() + self.window;
            stay.until = Some(until);
            inner.away.push_back((until, Arc::clone(client)));
        }
    }

    /// Whether a client is here, or away and awaited.
    pub fn has(&self, client: &str) -> bool {
        self.inner().clients.contains_key(client)
    }

    /// Notes the socket that has a session now, and ends the one that had it before, if it was here.
    pub fn take(&self, mailbox: &Arc<Mailbox>, epoch: Uuid) {
        let before =
            self.inner().sessions.insert(mailbox.session(), (epoch, Arc::downgrade(mailbox)));
        if let Some(older) = before.and_then(|(_, older)| older.upgrade()) {
            older.evict(Eviction::TakenOver);
        }
    }

    /// Forgets a socket's session, unless another socket has it now.
    pub fn give_up(&self, session: Uuid, epoch: Uuid) {
        let mut inner = self.inner();
        if inner.sessions.get(&session).is_some_and(|(known, _)| *known == epoch) {
            inner.sessions.remove(&session);
        }
    }

    /// Looks after those who do not come back, and those who went elsewhere.
    pub async fn look_after(&self, mut messages: LiveMessages) {
        let mut next = Instant::now() + LEAVING_EVERY;
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.hear(&News::read(&message)),
                    None => return,
                },
                () = sleep_until(next) => {
                    let gone = self.gone(Instant::now());
                    if !gone.is_empty() {
                        // What is asked for is done in order, whoever waits.
                        drop(self.handle.rebind(Vec::new(), gone));
                    }
                    next = Instant::now() + LEAVING_EVERY;
                }
            }
        }
    }

    fn hear(&self, news: &News) {
        if let News::Takeover { session, epoch, .. } = news {
            let mailbox = match self.inner().sessions.get(session) {
                Some((ours, mailbox)) if ours < epoch => mailbox.upgrade(),
                _ => None,
            };
            if let Some(mailbox) = mailbox {
                mailbox.evict(Eviction::TakenOver);
            }
        }
    }

    /// Those who are not awaited any longer.
    fn gone(&self, now: Instant) -> Vec<String> {
        let mut inner = self.inner();
        let mut gone = Vec::new();
        while let Some((until, client)) = inner.away.front().cloned() {
            if until > now && inner.away.len() <= self.away_max {
                break;
            }
            inner.away.pop_front();
            if inner.clients.get(&client).is_some_and(|stay| stay.until == Some(until)) {
                inner.clients.remove(&client);
                gone.push(client.to_string());
            }
        }
        gone
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // What is in it is whole after any panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
