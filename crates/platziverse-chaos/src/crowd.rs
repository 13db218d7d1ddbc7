//! Clients beside the agents, which a fault brings along.

use platziverse_testkit::{Client, Proxy, RawClient};

use crate::fleet::Fleet;
use crate::ledger::Ledger;

/// The clients of a fault.
#[derive(Debug, Default)]
pub struct Crowd {
    /// More agents.
    pub fleet: Option<Fleet>,
    /// Between them and the gateways.
    pub proxies: Vec<Proxy>,
    /// Clients of bytes.
    pub raw: Vec<RawClient>,
    /// Tasks that read slowly.
    pub tasks: Vec<tokio::task::JoinHandle<()>>,
    /// The newest connection of a client id.
    pub newest: Option<Client>,
    /// The accounts of agents that have ended.
    pub ledgers: Vec<Ledger>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
