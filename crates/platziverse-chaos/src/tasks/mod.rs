//! Events and commands as load: an application that publishes them, the service that some of them
//! call, and what must become of each.

pub mod endpoint;
pub mod kept;
pub mod kind;
pub mod reconcile;

use std::time::Duration;

use platziverse_testkit::World;

use self::endpoint::Endpoint;
use self::kind::{Kind, OMITTED, RETRY_DELAYS};
use crate::reconcile::Tally;
use crate::sender::Sender;
use crate::stage::Setting;

/// Why tasks of this load become dead letters.
pub const DEAD_EXPECTED: [&str; 4] =
    ["attempts_exhausted", "invalid_json", "rejected_by_handler", "unknown_command"];

/// Of the messages that are wanted a second, the share that there are tasks: each costs more.
const SHARE: f64 = 0.125;

/// The load.
#[derive(Debug)]
pub struct Tasks {
    /// Who publishes them.
    pub sender: Sender,
    endpoint: Endpoint,
}

/// What services need to know for it.
pub fn settings() -> Vec<Setting> {
    [
        ("PLATZIVERSE_TASKS__RETRY_DELAYS", RETRY_DELAYS.to_owned()),
        ("PLATZIVERSE_TASKS__MAX_ATTEMPTS", kind::ATTEMPTS_MAX.to_string()),
        ("PLATZIVERSE_TASKS__OMIT", OMITTED.to_owned()),
        ("PLATZIVERSE_TASKS__HTTP_ALLOW", "127.0.0.1".to_owned()),
        ("PLATZIVERSE_TASKS__HTTP_ALLOW_PRIVATE", "true".to_owned()),
    ]
    .to_vec()
}

impl Tasks {
    /// Begins to publish a share of `rate` tasks a second; `settings` are those of the services.
    pub async fn start(world: &World, settings: &[Setting], rate: f64) -> Result<Self, String> {
        let endpoint = Endpoint::start().await?;
        let address = endpoint.address();
        let compose = move |number, id| Kind::of(number).parcel(number, id, address);
        let sender = Sender::start(world, settings, SHARE * rate, compose).await?;
        Ok(Self { sender, endpoint })
    }

    /// Has the service fail for a time.
    pub fn fail_for(&self, time: Duration) {
        self.endpoint.fail_for(time);
    }

    /// Calls that have failed because of that.
    pub fn failed(&self) -> u64 {
        self.endpoint.failed()
    }

    /// Whether an event and a call from this number on are done.
    pub async fn are_done_from(&self, number: u64, world: &World) -> Result<(), String> {
        if !self.endpoint.has_answered_from(number) {
            return Err(format!("no call from task {number} on has come to the service"));
        }
        match kept::has_event_from(world, number).await? {
            true => Ok(()),
            false => Err(format!("no event from task {number} on is stored")),
        }
    }

    /// Ends, and counts.
    pub async fn close(
        &mut self,
        world: &World,
        letters_may_repeat: bool,
    ) -> Result<Tally, String> {
        self.sender.finish().await;
        let mut kept = kept::read(world).await?;
        kept.calls = self.endpoint.calls();
        kept.strange.extend(self.endpoint.strange());
        kept.letters_may_repeat = letters_may_repeat;
        Ok(reconcile::reconcile(&self.sender.outbox.sent(), &kept))
    }
}
