//! What clients sent, and what they were told about it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The account of one agent's messages, which are numbered from 0.
#[derive(Debug, Default)]
pub struct Account {
    /// How many messages were attempted: numbers below it may be stored, no others.
    pub attempted: u64,
    /// The numbers of those that were acknowledged.
    pub acknowledged: HashSet<u64>,
    /// Answers that refuse a message, in words.
    pub refused: Vec<String>,
}

/// One agent and its account, shared by the client that writes it and whoever reads it.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The agent's uuid.
    pub agent: Arc<str>,
    account: Arc<Mutex<Account>>,
}

impl Ledger {
    /// An empty account.
    pub fn of(agent: &str) -> Self {
        Self { agent: agent.into(), account: Arc::default() }
    }

    /// The account.
    pub fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next message's number.
    pub fn attempt(&self) -> u64 {
        let mut account = self.account();
        account.attempted += 1;
        account.attempted - 1
    }
}
