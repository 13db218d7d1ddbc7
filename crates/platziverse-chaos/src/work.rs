//! What the services of a round are busy with.

use std::net::SocketAddr;

use platziverse_testkit::{Aggregator, Mom as MomServer, Proxy, Servers, World};

use crate::commands::Commands;
use crate::fleet::Order;
use crate::mom::Mom;
use crate::mom::reconcile::Promises;
use crate::reconcile::Tally;
use crate::sender::Sender;
use crate::sessions::Sessions;
use crate::stage::{Setting, Setup};
use crate::tasks::{self, Tasks};

/// What the services of a round are busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// What agents report.
    Reports,
    /// Events and commands.
    Tasks,
    /// Commands to agents.
    Commands,
    /// Topics and queues for applications.
    Mom,
    /// Clients of aggregators, and the servers that work for them.
    Sessions,
}

/// What is emptied before a round ends; the queues in which tasks wait for another attempt have more
/// in their names.
const QUEUES: [&str; 5] = [
    "platziverse.ingest",
    "platziverse.events",
    "platziverse.commands",
    "platziverse.retry.",
    "platziverse.reports",
];
/// The same of topics and queues.
const MOM_QUEUES: [&str; 2] = ["mom.queue.load-", "mom.topic.load-"];
/// The same of channels.
const SESSION_QUEUES: [&str; 1] = ["IN_"];

impl Load {
    /// What services need to know for it.
    pub fn settings(self) -> Vec<Setting> {
        match self {
            Self::Reports | Self::Commands | Self::Mom | Self::Sessions => Vec::new(),
            Self::Tasks => tasks::settings(),
        }
    }

    /// The starts of the names of queues that must be empty at a round's end.
    pub fn queues(self) -> &'static [&'static str] {
        match self {
            Self::Mom => &MOM_QUEUES,
            Self::Sessions => &SESSION_QUEUES,
            _ => &QUEUES,
        }
    }
}

/// Servers that some loads use themselves.
#[derive(Clone, Copy, Debug)]
pub struct Others<'a> {
    /// Those of topics and queues.
    pub moms: &'a [MomServer],
    /// The aggregators.
    pub aggregators: &'a [Aggregator],
}

/// Applications that use the services, and whom they need.
#[derive(Debug)]
pub enum Work {
    /// Events and commands.
    Tasks(Tasks),
    /// Commands to agents.
    Commands(Commands),
    /// Topics and queues for applications.
    Mom(Mom),
    /// Clients of aggregators, and the servers that work for them.
    Sessions(Sessions),
}

impl Work {
    /// Begins with what a round wants; none if its load is what agents report. `name` is the start
    /// of agents' uuids.
    pub async fn start(
        name: &str,
        world: &World,
        setup: &Setup,
        gateways: &[SocketAddr],
        others: Others<'_>,
    ) -> Result<Option<Self>, String> {
        let (settings, rate) = (&setup.settings, setup.plan.rate);
        Ok(match setup.load {
            Load::Reports => None,
            Load::Tasks => Some(Self::Tasks(Tasks::start(world, settings, rate).await?)),
            Load::Commands => {
                let commands = Commands::start(name, world, settings, rate, gateways).await?;
                Some(Self::Commands(commands))
            }
            Load::Mom => Some(Self::Mom(Mom::start(others.moms, rate).await?)),
            Load::Sessions => {
                Some(Self::Sessions(Sessions::start(world, others.aggregators, rate).await?))
            }
        })
    }

    fn sender(&self) -> Option<&Sender> {
        match self {
            Self::Tasks(tasks) => Some(&tasks.sender),
            Self::Commands(commands) => Some(&commands.sender),
            Self::Mom(_) | Self::Sessions(_) => None,
        }
    }

    /// Between the application, or its servers, and RabbitMQ, if it speaks to that itself.
    pub fn amqp(&self) -> Option<&Proxy> {
        match self {
            Self::Sessions(sessions) => Some(&sessions.amqp),
            _ => self.sender().map(|sender| &sender.amqp),
        }
    }

    /// Gives all of it an order.
    pub fn order(&self, order: Order) {
        self.sender().into_iter().for_each(|sender| sender.order(order));
        match self {
            Self::Tasks(_) => {}
            Self::Commands(commands) => commands.order(order),
            Self::Mom(mom) => mom.order(order),
            Self::Sessions(sessions) => sessions.order(order),
        }
    }

    /// How many tasks or messages there are so far.
    pub fn sent(&self) -> u64 {
        match self {
            Self::Tasks(Tasks { sender, .. }) | Self::Commands(Commands { sender, .. }) => {
                sender.outbox.len()
            }
            Self::Mom(mom) => mom.letters.len(),
            Self::Sessions(sessions) => sessions.sent(),
        }
    }

    /// What has no answer yet and will have one.
    pub fn unsettled(&self) -> u64 {
        match self {
            Self::Tasks(tasks) => tasks.sender.outbox.open(),
            Self::Commands(commands) => commands.sender.outbox.open() + commands.owed(),
            Self::Mom(mom) => mom.letters.open(),
            Self::Sessions(sessions) => sessions.open(),
        }
    }

    /// Whether tasks of all kinds, or of all agents, from this number on are done.
    pub async fn is_done_from(&self, number: u64, world: &World) -> Result<(), String> {
        match self {
            Self::Tasks(tasks) => tasks.are_done_from(number, world).await,
            Self::Commands(commands) => commands.are_done_from(number),
            Self::Mom(mom) => mom.letters.are_done_from(number),
            Self::Sessions(sessions) => sessions.are_done_from(number),
        }
    }

    /// Whether the row of every command says that it has ended, and no row of the catalogue that
    /// something is half-done.
    pub async fn has_ended(&self, world: &World) -> Result<(), String> {
        if let Self::Mom(mom) = self {
            return mom.is_at_rest(world).await;
        }
        if matches!(self, Self::Sessions(_)) {
            return Ok(());
        }
        let open = "SELECT count(*) FROM commands WHERE ended_at IS NULL";
        let rows = world.database().try_sql(open).await?;
        match rows.into_iter().flatten().flatten().next().as_deref() {
            Some("0") => Ok(()),
            count => Err(format!("{count:?} have not")),
        }
    }

    /// Ends, and counts.
    pub async fn close(
        &mut self,
        world: &World,
        servers: &Servers,
        letters_may_repeat: bool,
        promises: Promises,
    ) -> Result<Tally, String> {
        match self {
            Self::Tasks(tasks) => tasks.close(world, letters_may_repeat).await,
            Self::Commands(commands) => commands.close(world).await,
            Self::Mom(mom) => mom.close(world, servers, promises).await,
            Self::Sessions(sessions) => sessions.close(world, promises).await,
        }
    }
}
