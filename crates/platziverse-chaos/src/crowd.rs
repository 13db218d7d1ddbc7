//! Clients beside the agents, which a fault brings along.

use platziverse_testkit::{Client, Proxy, RawClient, Toxic};
use tokio::task::JoinHandle;

use crate::fleet::{Fleet, Order};
use crate::ledger::Ledger;
use crate::noise::Noise;

/// The clients of a fault.
#[derive(Debug, Default)]
pub struct Crowd {
    /// More agents.
    pub fleet: Option<Fleet>,
    /// Between them and the gateways.
    pub proxies: Vec<Proxy>,
    /// Those that are too slow.
    pub subscribers: Vec<Subscriber>,
    /// What is too much for them.
    pub noise: Option<Noise>,
    /// The newest connection of a client id.
    pub newest: Option<Client>,
    /// The accounts of agents that have ended.
    pub ledgers: Vec<Ledger>,
}

/// A subscriber that is too slow.
#[derive(Debug)]
pub struct Subscriber {
    /// Its gateway, by number.
    pub gateway: usize,
    /// The process that let it in: with another one its connection is gone, whatever it did.
    pub process: u32,
    /// What it does.
    pub habit: Habit,
}

/// What a subscriber does with what it hears.
#[derive(Debug)]
pub enum Habit {
    /// It reads nothing.
    Deaf(RawClient),
    /// A task reads until the connection ends: with the reason code, if the gateway said one.
    Reads(JoinHandle<Option<u8>>),
}

impl Crowd {
    /// Messages of its agents without an answer that will be sent again until they have one.
    pub fn unsettled(&self) -> u64 {
        self.fleet.as_ref().map_or(0, Fleet::unsettled)
    }

    /// How many of its agents are connected.
    pub fn connected(&self) -> usize {
        self.fleet.as_ref().map_or(0, Fleet::connected)
    }

    /// Gives its agents an order.
    pub fn order(&self, order: Order) {
        if let Some(fleet) = &self.fleet {
            fleet.order(order);
        }
    }

    /// Nothing is in its way any more, and it only settles what it has sent.
    pub fn calm(&mut self) {
        self.silence();
        self.proxies.iter().for_each(|proxy| proxy.set(Toxic::None));
        self.order(Order::Settle);
    }

    /// The slow subscribers and what they are to hear are gone.
    pub fn silence(&mut self) {
        self.noise = None;
        for subscriber in self.subscribers.drain(..) {
            if let Habit::Reads(task) = subscriber.habit {
                task.abort();
            }
        }
    }

    /// Its agents end, and their accounts stay. Answers those whose task panicked.
    pub async fn disband(&mut self) -> Vec<String> {
        let Some(mut fleet) = self.fleet.take() else { return Vec::new() };
        self.ledgers.extend(fleet.ledgers());
        fleet.finish().await
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.silence();
    }
}
