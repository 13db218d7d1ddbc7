//! A subscriber of `agent/connected` and `agent/disconnected`: what the world is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use platziverse_testkit::{Client, Heard, Options, QoS, Version};
use tokio::task::JoinHandle;
use tokio::time::sleep;

const CONNECT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// A session, as its UUIDv7 is written: sorts by start.
pub type Session = String;

/// What was heard of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The greatest `(session, ended)`: what a listener believes.
    pub newest: Option<(Session, bool)>,
}

#[derive(Debug, Default)]
struct Notes {
    said: BTreeMap<String, Said>,
    subscribed: bool,
    /// Payloads that do not read as they should.
    strange: Vec<String>,
}

/// A listener on one gateway, which subscribes again when that gateway was away.
#[derive(Debug)]
pub struct Ear {
    notes: Arc<Mutex<Notes>>,
    task: JoinHandle<()>,
}

impl Ear {
    /// Listens at a gateway's address.
    #[expect(clippy::disallowed_methods, reason = "the drop ends the task")]
    pub fn at(gateway: SocketAddr) -> Self {
        let notes = Arc::<Mutex<Notes>>::default();
        let task = tokio::spawn(listen(gateway, Arc::clone(&notes)));
        Self { notes, task }
    }

    /// Whether it is subscribed now.
    pub fn is_subscribed(&self) -> bool {
        lock(&self.notes).subscribed
    }

    /// What was heard of each agent.
    pub fn said(&self) -> BTreeMap<String, Said> {
        lock(&self.notes).said.clone()
    }

    /// Payloads that could not be understood.
    pub fn strange(&self) -> Vec<String> {
        lock(&self.notes).strange.clone()
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(gateway: SocketAddr, notes: Arc<Mutex<Notes>>) {
    loop {
        if let Ok(client) = Client::try_connect(Options::new(gateway, Version::V5), CONNECT).await {
            let mut accepted = true;
            for filter in ["agent/connected", "agent/disconnected"] {
                let codes = client.try_subscribe(filter, QoS::AtLeastOnce, CONNECT).await;
                accepted &= codes.is_ok_and(|codes| codes.iter().all(|code| *code < 0x80));
            }
            lock(&notes).subscribed = accepted;
            while accepted && client.is_closed().is_none() {
                if let Some(heard) = client.next_within(PAUSE).await {
                    lock(&notes).note(&heard);
                }
            }
            lock(&notes).subscribed = false;
        }
        sleep(PAUSE).await;
    }
}

impl Notes {
    fn note(&mut self, heard: &Heard) {
        match read(heard) {
            Some((agent, session, ended)) => {
                self.said.entry(agent).or_default().hear(session, ended);
            }
            None => self.strange.push(format!("heard {}: {}", heard.topic, heard.payload)),
        }
    }
}

impl Said {
    fn hear(&mut self, session: Session, ended: bool) {
        self.newest = self.newest.take().max(Some((session, ended)));
    }
}

fn read(heard: &Heard) -> Option<(String, Session, bool)> {
    let ended = match heard.topic.as_str() {
        "agent/connected" => false,
        "agent/disconnected" => true,
        _ => return None,
    };
    let payload: serde_json::Value = serde_json::from_str(&heard.payload).ok()?;
    let agent = payload["agent"]["uuid"].as_str()?.to_owned();
    Some((agent, payload["session"].as_str()?.to_owned(), ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_session_is_believed() {
        let mut said = Said::default();
        said.hear("2".into(), false);
        said.hear("1".into(), true);
        assert_eq!(said.newest, Some(("2".into(), false)));
        said.hear("2".into(), true);
        said.hear("2".into(), false);
        assert_eq!(said.newest, Some(("2".into(), true)));
    }
}
