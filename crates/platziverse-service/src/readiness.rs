//! Readiness: what must be up before work is accepted, by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The state of one dependency: up, or why not.
pub(crate) type State = Result<(), String>;

/// The dependencies of a process. It is ready when all are up.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    latches: Arc<Mutex<BTreeMap<String, State>>>,
}

/// One dependency's latch, held by whoever knows its state.
#[derive(Clone, Debug)]
pub struct Latch {
    name: String,
    readiness: Readiness,
}

impl Readiness {
    /// Adds a dependency, which is not up yet.
    pub fn latch(&self, name: impl Into<String>) -> Latch {
        let name = name.into();
        self.lock().insert(name.clone(), Err("starting".to_owned()));
        Latch { name, readiness: self.clone() }
    }

    /// Whether every dependency is up.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(Result::is_ok)
    }

    /// Every dependency with its state.
    pub(crate) fn states(&self) -> BTreeMap<String, State> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        // A map of plain values is whole after any panic.
        self.latches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Latch {
    /// Says that the dependency is up.
    pub fn ready(&self) {
        if self.set(Ok(())) {
            tracing::info!(dependency = self.name, "{} is ready", self.name);
        }
    }

    /// Says that it is not, and why, in words.
    pub fn not_ready(&self, why: impl Into<String>) {
        let why = why.into();
        if self.set(Err(why.clone())) {
            tracing::warn!(dependency = self.name, "{} is not ready: {why}", self.name);
        }
    }

    /// Forgets the dependency: the process is ready without it. Its state said again, also by a
    /// clone, brings it back.
    pub fn remove(&self) {
        if self.readiness.lock().remove(&self.name).is_some() {
            tracing::debug!(dependency = self.name, "{} is no longer needed", self.name);
        }
    }

    fn set(&self, state: State) -> bool {
        let mut latches = self.readiness.lock();
        let changed = latches.get(&self.name) != Some(&state);
        latches.insert(self.name.clone(), state);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_all_are() {
        let readiness = Readiness::default();
        let (broker, database) = (readiness.latch("rabbitmq"), readiness.latch("postgresql"));
        broker.ready();
        assert!(!readiness.is_ready());
        database.ready();
        assert!(readiness.is_ready());
        broker.not_ready("gone");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.states()["rabbitmq"], Err("gone".to_owned()));
        broker.remove();
        assert!(readiness.is_ready());
        assert_eq!(readiness.states().len(), 1);
    }
}
