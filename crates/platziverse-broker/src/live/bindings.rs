//! Which keys a live queue is bound to, each counted.

use std::collections::BTreeMap;

/// Keys with how often each was bound.
#[derive(Debug, Default)]
pub(super) struct Bindings(BTreeMap<String, usize>);

impl Bindings {
    /// Counts a key; whether it is new.
    pub(super) fn add(&mut self, key: &str) -> bool {
        let count = self.0.entry(key.to_owned()).or_default();
        *count += 1;
        *count == 1
    }

    /// Takes one count back; whether the key is wanted by nobody any more.
    pub(super) fn remove(&mut self, key: &str) -> bool {
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
}
