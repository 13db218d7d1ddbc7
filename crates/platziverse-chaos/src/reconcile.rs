//! What clients were told against what is kept. Pure.

use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;

use serde::Serialize;

use crate::ledger::Ledger;

/// One message: an agent and a number of its own.
pub type MessageKey = (String, u64);

/// How many rows a message has of each of its two metrics: one each, if it is stored once and whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Of the metric `number`.
    pub number: u64,
    /// Of the metric `load`.
    pub load: u64,
}

impl Copies {
    /// How often at least some of it is stored.
    fn times(self) -> u64 {
        self.number.max(self.load)
    }

    fn is_whole(self) -> bool {
        self.number == self.load
    }
}

impl AddAssign for Copies {
    fn add_assign(&mut self, other: Self) {
        self.number += other.number;
        self.load += other.load;
    }
}

/// What was found in the database and in the dead-letter queue.
#[derive(Debug, Default)]
pub struct Kept {
    /// How often each message is stored.
    pub stored: HashMap<MessageKey, Copies>,
    /// The messages that are dead letters.
    pub dead: HashSet<MessageKey>,
    /// Rows and dead letters that this round gave no reason for, in words.
    pub strange: Vec<String>,
    /// Whether good messages may be dead letters: the round took away where they belong.
    pub good_may_die: bool,
}

/// What became of a round's messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Messages that clients sent, however often each.
    pub attempted: u64,
    /// Of these, those that a client was told are kept.
    pub acknowledged: u64,
    /// Messages that the database has, acknowledged or not.
    pub stored: u64,
    /// Messages that the dead-letter queue has, acknowledged or not.
    pub dead: u64,
    /// Acknowledged, and neither stored nor a dead letter.
    pub lost: u64,
    /// Some of them by name, so that logs can be searched for them.
    pub examples: Vec<String>,
    /// How often messages are stored beyond the first time.
    pub duplicated: u64,
    /// What should not have happened, each in words.
    pub unexpected: Vec<String>,
    /// What may happen and is worth knowing, each in words.
    pub notes: Vec<String>,
}

/// At most so many words about one kind of trouble.
const EXAMPLES: usize = 3;

/// Reconciles both sides.
pub fn reconcile(ledgers: &[Ledger], kept: &Kept) -> Tally {
    let mut tally = Tally { unexpected: kept.strange.clone(), ..Tally::default() };
    let mut known = HashMap::new();
    let (mut missing, mut buried) = (Vec::new(), Vec::new());
    for ledger in ledgers {
        let account = ledger.account();
        known.insert(ledger.agent.to_string(), account.attempted);
        tally.attempted += account.attempted;
        tally.acknowledged += account.acknowledged.len() as u64;
        tally.unexpected.extend(account.refused.iter().take(EXAMPLES).cloned());
        for number in &account.acknowledged {
            let key = (ledger.agent.to_string(), *number);
            if kept.dead.contains(&key) && !kept.good_may_die {
                buried.push(key.clone());
            }
            if !kept.stored.contains_key(&key) && !kept.dead.contains(&key) {
                missing.push(key);
            }
        }
    }
    tally.stored = kept.stored.len() as u64;
    tally.dead = kept.dead.len() as u64;
    tally.lost = missing.len() as u64;
    tally.duplicated = kept.stored.values().map(|copies| copies.times().saturating_sub(1)).sum();
    let was_sent =
        |(agent, number): &MessageKey| known.get(agent).is_some_and(|sent| number < sent);
    let strangers = kept.stored.keys().filter(|key| !was_sent(key));
    let parts = kept.stored.iter().filter(|(_, copies)| !copies.is_whole()).map(|(key, _)| key);
    tally.unexpected.extend(words("stored, but nobody sent it", strangers.collect()));
    tally.unexpected.extend(words("stored in part", parts.collect()));
    tally.unexpected.extend(words("a good message is a dead letter", buried.iter().collect()));
    tally.examples = words("lost", missing.iter().collect());
    tally
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.attempted += other.attempted;
        self.acknowledged += other.acknowledged;
        self.stored += other.stored;
        self.dead += other.dead;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.examples.extend(other.examples);
        self.unexpected.extend(other.unexpected);
        self.notes.extend(other.notes);
    }
}

fn words(what: &str, mut keys: Vec<&MessageKey>) -> Vec<String> {
    keys.sort();
    let name = |(agent, number): &MessageKey| format!("{agent} message {number}");
    some(what, keys.into_iter().map(name).collect())
}

/// Some of what there is of one kind of trouble, and how many more there are.
pub fn some(what: &str, all: Vec<String>) -> Vec<String> {
    let more = all.len().saturating_sub(EXAMPLES);
    let words = all.into_iter().take(EXAMPLES).map(|one| format!("{what}: {one}"));
    words.chain((more > 0).then(|| format!("{what}: {more} more"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(attempted: u64, acknowledged: &[u64]) -> Ledger {
        let ledger = Ledger::of("a");
        ledger.account().attempted = attempted;
        ledger.account().acknowledged = acknowledged.iter().copied().collect();
        ledger
    }

    fn check(ledger: Ledger, stored: &[(u64, Copies)], dead: &[u64], want: (u64, u64, usize)) {
        let key = |number: u64| ("a".to_owned(), number);
        let kept = Kept {
            stored: stored.iter().map(|(number, copies)| (key(*number), *copies)).collect(),
            dead: dead.iter().map(|number| key(*number)).collect(),
            strange: Vec::new(),
            good_may_die: false,
        };
        let tally = reconcile(&[ledger], &kept);
        assert_eq!((tally.lost, tally.duplicated, tally.unexpected.len()), want, "{tally:?}");
    }

    #[test]
    fn verdicts() {
        let copies = |number, load| Copies { number, load };
        let once = copies(1, 1);
        check(ledger(3, &[0, 1, 2]), &[(0, once), (1, once), (2, once)], &[], (0, 0, 0));
        // Stored without an acknowledgement is no loss: the answer may have been on its way.
        check(ledger(3, &[0]), &[(0, once), (2, once)], &[], (0, 0, 0));
        check(ledger(3, &[0, 1]), &[(0, once)], &[], (1, 0, 0));
        check(ledger(3, &[0, 1]), &[(0, once)], &[1], (0, 0, 1));
        check(ledger(3, &[0]), &[(0, copies(3, 3))], &[], (0, 2, 0));
        check(ledger(3, &[0]), &[(0, copies(1, 0))], &[], (0, 0, 1));
        check(ledger(3, &[0]), &[(0, copies(1, 2))], &[], (0, 1, 1));
        check(ledger(1, &[0]), &[(0, once), (1, once)], &[], (0, 0, 1));
    }

    #[test]
    fn refusals_and_strange_dead_letters_are_unexpected() {
        let ledger = ledger(1, &[]);
        ledger.account().refused.push("0x99".to_owned());
        let kept = Kept { strange: vec!["?".to_owned()], ..Kept::default() };
        assert_eq!(reconcile(&[ledger], &kept).unexpected, ["?", "0x99"]);
    }
}
