//! Which keys a live queue is bound to, each counted.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

/// Keys with how often each was bound.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    counts: BTreeMap<String, usize>,
    /// Keys that RabbitMQ does not let us bind.
    refused: BTreeSet<String>,
}

/// What RabbitMQ must be asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Bind(String),
    Unbind(String),
}

impl Bindings {
    /// Counts the keys of `bind`, then takes those of `unbind` back; answers what follows from it
    /// for RabbitMQ, in order.
    pub(super) fn change(&mut self, bind: Vec<String>, unbind: Vec<String>) -> Vec<Act> {
        let mut acts = Vec::new();
        for key in bind {
            if self.add(&key) {
                acts.push(Act::Bind(key));
            }
        }
        for key in unbind {
            if self.remove(&key) && !self.refused.remove(&key) {
                acts.push(Act::Unbind(key));
            }
        }
        acts
    }

    /// Counts a key; whether it is new.
    fn add(&mut self, key: &str) -> bool {
        let count = self.counts.entry(key.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Takes one count back; whether the key is wanted by nobody any more.
    fn remove(&mut self, key: &str) -> bool {
        let Some(count) = self.counts.get_mut(key) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.counts.remove(key);
        }
        last
    }

    /// Notes that RabbitMQ refuses a key.
    pub(super) fn refuse(&mut self, key: String) {
        if self.counts.contains_key(&key) {
            self.refused.insert(key);
        }
    }

    /// Every key is to be bound, whatever was refused before.
    pub(super) fn bind_all(&mut self) -> Vec<Act> {
        self.refused.clear();
        self.counts.keys().cloned().map(Act::Bind).collect()
    }

    /// What was refused is to be bound after all.
    pub(super) fn ask_again(&mut self) -> Vec<Act> {
        mem::take(&mut self.refused).into_iter().map(Act::Bind).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted() {
        let mut bindings = Bindings::default();
        assert!(bindings.add("a"));
        assert!(!bindings.add("a"));
        assert!(!bindings.remove("a"));
        assert_eq!(bindings.bind_all(), [Act::Bind("a".to_owned())]);
        assert!(bindings.remove("a"));
        assert!(!bindings.remove("a"), "unknown keys are nobody's");
        assert_eq!(bindings.bind_all(), []);
    }

    #[test]
    fn what_rabbitmq_is_asked() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let bind = |key: &str| Act::Bind(key.to_owned());
        let unbind = |key: &str| Act::Unbind(key.to_owned());
        let mut bindings = Bindings::default();
        for (add, remove, acts) in [
            (keys(&["a", "b", "a"]), keys(&[]), vec![bind("a"), bind("b")]),
            (keys(&[]), keys(&["a", "x"]), vec![]),
            (keys(&["a"]), keys(&["a", "b"]), vec![unbind("b")]),
            (keys(&["c"]), keys(&["a", "c"]), vec![bind("c"), unbind("a"), unbind("c")]),
        ] {
            assert_eq!(bindings.change(add, remove), acts);
        }
        assert_eq!(bindings.bind_all(), []);
    }

    #[test]
    fn what_was_refused_is_asked_for_again() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let bind = |key: &str| Act::Bind(key.to_owned());
        let mut bindings = Bindings::default();
        bindings.change(keys(&["a", "b", "c"]), keys(&[]));
        for key in keys(&["a", "b", "gone"]) {
            bindings.refuse(key);
        }
        assert_eq!(bindings.change(keys(&["a"]), keys(&["a", "b"])), [], "b was not bound");
        assert_eq!(bindings.ask_again(), [bind("a")]);
        assert_eq!(bindings.ask_again(), []);
        bindings.refuse("a".to_owned());
        assert_eq!(bindings.bind_all(), [bind("a"), bind("c")]);
        assert_eq!(bindings.ask_again(), []);
    }
}
