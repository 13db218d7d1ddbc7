//! Commands to agents as load: an application that publishes them, the agents, and what must become
//! of each command.

pub mod agent;
pub mod diary;
pub mod kept;
pub mod kind;
pub mod reconcile;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use platziverse_testkit::{World, millis_ago};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::agent::{Agent, Mood, Status};
use self::diary::Diary;
use self::kind::{AGENTS, Temper};
use crate::fleet::Order;
use crate::reconcile::Tally;
use crate::sender::Sender;
use crate::stage::Setting;

/// Of the messages that are wanted a second, the share that there are commands: one for each agent.
const SHARE: f64 = 0.0625;
/// How long an agent may take to end.
const END: Duration = Duration::from_secs(20);

/// The load.
#[derive(Debug)]
pub struct Commands {
    /// Who publishes them.
    pub sender: Sender,
    agents: Vec<Known>,
    moods: watch::Sender<Mood>,
    diary: Diary,
}

/// What is known of an agent.
#[derive(Debug)]
struct Known {
    uuid: String,
    temper: Temper,
    status: Arc<Status>,
    task: Option<JoinHandle<()>>,
}

impl Commands {
    /// Starts the agents, whose uuids begin with `name`, and begins to publish a share of `rate`
    /// commands a second; `settings` are those of the services.
    pub async fn start(
        name: &str,
        world: &World,
        settings: &[Setting],
        rate: f64,
        gateways: &[SocketAddr],
    ) -> Result<Self, String> {
        let (moods, _) = watch::channel(Mood::Lively);
        let (diary, gateways) = (Diary::default(), Arc::from(gateways));
        let known = |number| Known::start(name, number, &gateways, &moods, &diary);
        let agents: Vec<Known> = (0..AGENTS).map(known).collect();
        let uuids: Vec<String> = agents.iter().map(|agent| agent.uuid.clone()).collect();
        let compose = move |number, id| {
            let place = usize::try_from(kind::target(number)).unwrap_or_default();
            kind::parcel(number, id, &uuids[place], millis_ago(Duration::ZERO))
        };
        let sender = Sender::start(world, settings, SHARE * rate, compose).await?;
        Ok(Self { sender, agents, moods, diary })
    }

    /// Gives the agents an order.
    pub fn order(&self, order: Order) {
        match order {
            Order::Report => self.set(Mood::Lively),
            Order::Settle | Order::RollCall => self.set(Mood::Calm),
            Order::End => self.set(Mood::Over),
        }
    }

    /// Has the agents behave in another way.
    pub fn set(&self, mood: Mood) {
        self.moods.send_replace(mood);
    }

    /// Answers of agents that will be sent until they are acknowledged.
    pub fn owed(&self) -> u64 {
        self.agents.iter().map(|agent| agent.status.owed.load(Ordering::Relaxed)).sum()
    }

    /// How often an agent has crashed between its PUBACK and its answer.
    pub fn crashes(&self) -> u64 {
        self.diary.crashes()
    }

    /// How many agents answer.
    pub fn answering(&self) -> u64 {
        self.agents.iter().filter(|agent| agent.temper == Temper::Answers).count() as u64
    }

    /// Whether every agent that answers has answered a command from this number on.
    pub fn are_done_from(&self, number: u64) -> Result<(), String> {
        let behind = |agent: &&Known| {
            agent.temper == Temper::Answers
                && agent.status.answered.load(Ordering::Relaxed) <= number
        };
        match self.agents.iter().filter(behind).count() {
            0 => Ok(()),
            count => Err(format!("{count} agents have answered no command from {number} on")),
        }
    }

    /// Ends, and counts.
    pub async fn close(&mut self, world: &World) -> Result<Tally, String> {
        self.sender.finish().await;
        self.set(Mood::Over);
        for agent in &mut self.agents {
            let Some(task) = agent.task.take() else { continue };
            if timeout(END, task).await.is_ok_and(|ended| ended.is_err()) {
                self.diary.note(format!("the client {} panicked", agent.uuid));
            }
        }
        let mut kept = kept::read(world).await?;
        kept.deeds = self.diary.deeds();
        kept.strange.extend(self.diary.strange());
        let uuids: Vec<&str> = self.agents.iter().map(|agent| agent.uuid.as_str()).collect();
        let mut tally = reconcile::reconcile(&self.sender.outbox.sent(), &uuids, &kept);
        let crashes = self.crashes();
        tally.notes.push(format!("agents that crashed between PUBACK and answer: {crashes}"));
        Ok(tally)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.set(Mood::Over);
    }
}

impl Known {
    #[expect(clippy::disallowed_methods, reason = "close() waits, and the drop tells them to end")]
    fn start(
        name: &str,
        number: u64,
        gateways: &Arc<[SocketAddr]>,
        moods: &watch::Sender<Mood>,
        diary: &Diary,
    ) -> Self {
        let (uuid, temper) = (format!("{name}-{number}"), Temper::of(number));
        let status = Arc::<Status>::default();
        let agent = Agent {
            uuid: uuid.clone(),
            number,
            gateways: Arc::clone(gateways),
            moods: moods.subscribe(),
            diary: diary.clone(),
            status: Arc::clone(&status),
        };
        let task = (temper != Temper::Absent).then(|| tokio::spawn(agent.run()));
        Self { uuid, temper, status, task }
    }
}
