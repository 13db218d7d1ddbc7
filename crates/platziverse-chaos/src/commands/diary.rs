//! What agents did with their commands, as they know it themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use platziverse_testkit::millis_ago;
use uuid::Uuid;

/// What became of one command at its agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// The ids under which it came.
    pub ids: BTreeSet<Uuid>,
    /// How often it came.
    pub came: u64,
    /// When its agent first began to acknowledge it, in milliseconds since 1970.
    pub acknowledged: Option<i64>,
    /// Whether its agent has done it, or found that it cannot.
    pub done: bool,
}

#[derive(Debug, Default)]
struct Page {
    deeds: BTreeMap<u64, Deeds>,
    crashes: u64,
    strange: Vec<String>,
}

/// The diary of all agents.
#[derive(Clone, Debug, Default)]
pub struct Diary(Arc<Mutex<Page>>);

impl Diary {
    fn page(&self) -> MutexGuard<'_, Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command has come.
    pub fn came(&self, number: u64, id: Uuid) {
        let mut page = self.page();
        let deeds = page.deeds.entry(number).or_default();
        deeds.ids.insert(id);
        deeds.came += 1;
    }

    /// Its agent is about to acknowledge it.
    pub fn acknowledges(&self, number: u64) {
        let now = millis_ago(std::time::Duration::ZERO);
        self.page().deeds.entry(number).or_default().acknowledged.get_or_insert(now);
    }

    /// Its agent has done it.
    pub fn done(&self, number: u64) {
        self.page().deeds.entry(number).or_default().done = true;
    }

    /// An agent has crashed between its PUBACK and its answer.
    pub fn crashed(&self) {
        self.page().crashes += 1;
    }

    /// How often one has.
    pub fn crashes(&self) -> u64 {
        self.page().crashes
    }

    /// Something that should not have happened to an agent.
    pub fn note(&self, words: String) {
        self.page().strange.push(words);
    }

    /// What should not have happened.
    pub fn strange(&self) -> Vec<String> {
        self.page().strange.clone()
    }

    /// Everything that was done, by the commands' numbers.
    pub fn deeds(&self) -> BTreeMap<u64, Deeds> {
        self.page().deeds.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_acknowledgement_counts() {
        let (diary, id) = (Diary::default(), Uuid::now_v7());
        let before = millis_ago(std::time::Duration::ZERO);
        diary.came(1, id);
        diary.acknowledges(1);
        let first = diary.deeds()[&1].acknowledged;
        assert!(first >= Some(before));
        diary.came(1, id);
        diary.acknowledges(1);
        diary.done(1);
        let want = Deeds { ids: [id].into(), came: 2, acknowledged: first, done: true };
        assert_eq!(diary.deeds()[&1], want);
    }
}
