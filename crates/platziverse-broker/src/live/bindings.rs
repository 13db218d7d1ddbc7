//! Which keys a live queue is bound to, each counted.

use std::collections::BTreeMap;

/// Keys with how often each was bound.
#[derive(Debug, Default)]
pub(super) struct Bindings(BTreeMap<String, usize>);

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
            if self.remove(&key) {
                acts.push(Act::Unbind(key));
            }
        }
        acts
    }

    /// Counts a key; whether it is new.
    fn add(&mut self, key: &str) -> bool {
        let count = self.0.entry(key.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Takes one count back; whether the key is wanted by nobody any more.
    fn remove(&mut self, key: &str) -> bool {
        let Some(count) = self.0.get_mut(key) else { return false };
        *count -= 1;
        let last = *count == 0;
        if last {
            self.0.remove(key);
        }
        last
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
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
        assert_eq!(bindings.keys().collect::<Vec<_>>(), ["a"]);
        assert!(bindings.remove("a"));
        assert!(!bindings.remove("a"), "unknown keys are nobody's");
        assert_eq!(bindings.keys().count(), 0);
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
        assert_eq!(bindings.keys().count(), 0);
    }
}
