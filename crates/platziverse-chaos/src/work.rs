//! What the services of a round are busy with.

use std::net::SocketAddr;

use platziverse_testkit::{Proxy, World};

use crate::commands::Commands;
use crate::fleet::Order;
use crate::reconcile::Tally;
use crate::sender::Sender;
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
}

impl Load {
    /// What services need to know for it.
    pub fn settings(self) -> Vec<Setting> {
        match self {
            Self::Reports | Self::Commands => Vec::new(),
            Self::Tasks => tasks::settings(),
        }
    }
}

/// An application that publishes tasks, and whom they need.
#[derive(Debug)]
pub enum Work {
    /// Events and commands.
    Tasks(Tasks),
    /// Commands to agents.
    Commands(Commands),
}

impl Work {
    /// Begins with what a round wants; none if its load is what agents report. `name` is the start
    /// of agents' uuids.
    pub async fn start(
        name: &str,
        world: &World,
        setup: &Setup,
        gateways: &[SocketAddr],
    ) -> Result<Option<Self>, String> {
        let (settings, rate) = (&setup.settings, setup.plan.rate);
        Ok(match setup.load {
            Load::Reports => None,
            Load::Tasks => Some(Self::Tasks(Tasks::start(world, settings, rate).await?)),
            Load::Commands => {
                let commands = Commands::start(name, world, settings, rate, gateways).await?;
                Some(Self::Commands(commands))
            }
        })
    }

    fn sender(&self) -> &Sender {
        match self {
            Self::Tasks(tasks) => &tasks.sender,
            Self::Commands(commands) => &commands.sender,
        }
    }

    /// Between the application and RabbitMQ.
    pub fn amqp(&self) -> &Proxy {
        &self.sender().amqp
    }

    /// Gives all of it an order.
    pub fn order(&self, order: Order) {
        self.sender().order(order);
        if let Self::Commands(commands) = self {
            commands.order(order);
        }
    }

    /// How many tasks there are so far.
    pub fn sent(&self) -> u64 {
        self.sender().outbox.len()
    }

    /// What has no answer yet and will have one.
    pub fn unsettled(&self) -> u64 {
        let owed = match self {
            Self::Tasks(_) => 0,
            Self::Commands(commands) => commands.owed(),
        };
        self.sender().outbox.open() + owed
    }

    /// Whether tasks of all kinds, or of all agents, from this number on are done.
    pub async fn is_done_from(&self, number: u64, world: &World) -> Result<(), String> {
        match self {
            Self::Tasks(tasks) => tasks.are_done_from(number, world).await,
            Self::Commands(commands) => commands.are_done_from(number),
        }
    }

    /// Whether the row of every command says that it has ended.
    pub async fn has_ended(&self, world: &World) -> Result<(), String> {
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
        letters_may_repeat: bool,
    ) -> Result<Tally, String> {
        match self {
            Self::Tasks(tasks) => tasks.close(world, letters_may_repeat).await,
            Self::Commands(commands) => commands.close(world).await,
        }
    }
}
