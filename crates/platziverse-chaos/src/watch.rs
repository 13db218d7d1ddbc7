//! What is looked at all the time: books that balance, memory that stays within its bound.

use std::collections::BTreeSet;

use platziverse_testkit::Process;
use serde::Serialize;

/// The most memory that a gateway may take, in bytes: the buffer of its publisher (64 MiB), its
/// connections and what passes through.
pub const GATEWAY_MEMORY_MAX: u64 = 256 << 20;
/// The most memory that a worker may take, in bytes: what its writers hold and one batch of each.
pub const WORKER_MEMORY_MAX: u64 = 512 << 20;

/// The most memory that any service of a kind took, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peak {
    /// Of a gateway.
    pub gateway: u64,
    /// Of a worker.
    pub worker: u64,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Watch {
    /// The peaks so far.
    pub peak: Peak,
    /// How often books were read.
    pub readings: u64,
    unexpected: BTreeSet<String>,
}

impl Watch {
    /// Looks at one gateway.
    pub async fn gateway(&mut self, process: &Process) {
        self.peak.gateway = self.peak.gateway.max(process.peak_memory());
        self.books(process).await;
    }

    /// Looks at one worker.
    pub async fn worker(&mut self, process: &Process) {
        self.peak.worker = self.peak.worker.max(process.peak_memory());
        self.books(process).await;
    }

    /// A process that does not answer has nothing to say: it may be killed at this moment.
    async fn books(&mut self, process: &Process) {
        let Ok(balance) = process.books().await else { return };
        self.readings += 1;
        if balance.entered != balance.accounted {
            self.unexpected.insert(format!(
                "the books of {} do not balance: {} entered, {} accounted for",
                process.name(),
                balance.entered,
                balance.accounted
            ));
        }
    }

    /// What should not have been seen.
    pub fn unexpected(&self) -> Vec<String> {
        let over = |kind: &str, peak: u64, bound: u64| {
            (peak > bound).then(|| format!("a {kind} took {} MB of memory", peak >> 20))
        };
        let gateway = over("gateway", self.peak.gateway, GATEWAY_MEMORY_MAX);
        let worker = over("worker", self.peak.worker, WORKER_MEMORY_MAX);
        self.unexpected.iter().cloned().chain(gateway).chain(worker).collect()
    }
}
