//! What clients were told against what the streams hold and the servers have done. Pure.

use std::collections::{BTreeMap, BTreeSet};

use platziverse_testkit::{Followed, StreamMessage};
use serde_json::Value;

use super::client::is_unavailable;
use super::kind::Kind;
use crate::reconcile::{Tally, some};

/// How a server writes down what it begins to do.
const DOES: &str = "works on ";

/// What a client has sent, and what it was told.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its id.
    pub id: String,
    /// What it was for.
    pub kind: Kind,
    /// What answered it, in order.
    pub outcomes: Vec<Value>,
}

/// Everything that a client knows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The client.
    pub name: String,
    /// What it has sent.
    pub sent: Vec<Sent>,
    /// What came, each once by its offset.
    pub heard: Vec<Followed>,
    /// What it was told to have missed.
    pub gaps: Vec<String>,
    /// Errors that answered nothing.
    pub errors: Vec<String>,
    /// What came again, and was dropped by its offset or its id.
    pub repeats: u64,
}

/// What a stream holds for clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The stream.
    pub source: &'static str,
    /// Its place there.
    pub offset: u64,
    /// Those whom it is for; empty for everybody.
    to: Vec<String>,
    body: Value,
}

impl Entry {
    /// Reads a message of a stream; none if it is a reply, or of aggregators among themselves.
    pub fn of(source: &'static str, message: &StreamMessage) -> Option<Self> {
        if message.kind == "reply" || message.key.ends_with(".marker") {
            return None;
        }
        let named = message.body["to"].as_array().into_iter().flatten();
        Some(Self {
            source,
            offset: u64::try_from(message.offset).ok()?,
            to: named.filter_map(Value::as_str).map(str::to_owned).collect(),
            body: message.body.clone(),
        })
    }

    /// Whether it is for this client.
    pub fn is_for(&self, client: &str) -> bool {
        self.to.is_empty() || self.to.iter().any(|to| to == client)
    }

    /// The id of the packet that it comes from.
    fn id(&self) -> Option<&str> {
        self.body["id"].as_str().or_else(|| self.body["said"].as_str())
    }
}

/// How often servers have begun with what has this id, by their logs.
pub fn deeds(logs: &[String]) -> BTreeMap<String, u64> {
    let mut deeds = BTreeMap::new();
    for line in logs.iter().flat_map(|log| log.lines()) {
        let Some((_, told)) = line.split_once(DOES) else { continue };
        let told: Value = serde_json::from_str(told).unwrap_or_default();
        if let Some(id) = told["ask"].as_str().or_else(|| told["say"].as_str()) {
            *deeds.entry(id.to_owned()).or_default() += 1;
        }
    }
    deeds
}

/// Reconciles everything. `done_once` says whether servers may have begun with a request only once.
pub fn reconcile(
    pages: &[Page],
    entries: &[Entry],
    deeds: &BTreeMap<String, u64>,
    done_once: bool,
) -> Tally {
    let mut tally = Tally::default();
    let stored: BTreeSet<&str> = entries.iter().filter_map(Entry::id).collect();
    let mut found = Found::default();
    for page in pages {
        hear(page, entries, &mut found);
        for sent in &page.sent {
            tally.attempted += 1;
            let done = deeds.get(&sent.id).copied().unwrap_or(0);
            let is_kept = match sent.kind {
                Kind::Request => done > 0,
                Kind::Say => done > 0 && stored.contains(sent.id.as_str()),
                _ => stored.contains(sent.id.as_str()),
            };
            tally.stored += u64::from(is_kept);
            let is_told = judge(sent, &mut found);
            tally.acknowledged += u64::from(is_told);
            if is_told && !is_kept {
                found.lost.push(format!("{} was answered and is not kept", sent.id));
            }
            if sent.kind == Kind::Request && done > 1 {
                found.again += done - 1;
                if done_once {
                    tally.duplicated += done - 1;
                    tally.examples.push(format!("{} was done {done} times", sent.id));
                }
            }
        }
    }
    tally.lost = found.lost.len() as u64;
    tally.examples.truncate(3);
    tally.examples.extend(some("lost", found.lost));
    for (what, words) in [
        ("came to somebody else, or from nobody", found.foreign),
        ("a request that has two outcomes", found.twofold),
        ("without an outcome", found.open),
        ("another outcome than was promised", found.wrong),
        ("told to be missed", found.gaps),
        ("an error that answers nothing", found.errors),
    ] {
        tally.unexpected.extend(some(what, words));
    }
    let repeats: u64 = pages.iter().map(|page| page.repeats).sum();
    tally.notes.push(format!("came again: {repeats}; requests done again: {}", found.again));
    tally
}

/// What is wrong, each in words.
#[derive(Debug, Default)]
struct Found {
    lost: Vec<String>,
    foreign: Vec<String>,
    twofold: Vec<String>,
    open: Vec<String>,
    wrong: Vec<String>,
    gaps: Vec<String>,
    errors: Vec<String>,
    again: u64,
}

/// A client has to hear what is for it, and nothing else. What comes out of order it drops as a repeat,
/// so that it is missed.
fn hear(page: &Page, entries: &[Entry], found: &mut Found) {
    let name = &page.name;
    let heard: BTreeMap<(&str, u64), &Value> = page
        .heard
        .iter()
        .map(|one| ((one.source.as_str(), one.offset), &one.packet["message"]))
        .collect();
    let own = entries.iter().filter(|entry| entry.is_for(name));
    let wanted: BTreeMap<(&str, u64), &Value> =
        own.map(|entry| ((entry.source, entry.offset), &entry.body)).collect();
    let missed = wanted.keys().filter(|place| !heard.contains_key(*place));
    let missed = missed.map(|(source, offset)| format!("{source} {offset} did not come to {name}"));
    found.lost.extend(missed);
    let foreign = heard.iter().filter(|(place, body)| wanted.get(*place) != Some(*body));
    let foreign = foreign.map(|((source, offset), _)| format!("{source} {offset} to {name}"));
    found.foreign.extend(foreign);
    found.gaps.extend(page.gaps.iter().map(|gap| format!("{gap} by {name}")));
    found.errors.extend(page.errors.iter().map(|error| format!("{error} to {name}")));
}

/// Whether a packet was answered as it should, once.
fn judge(sent: &Sent, found: &mut Found) -> bool {
    let last_words = sent.outcomes.iter().filter(|outcome| !is_unavailable(outcome));
    let last_words: Vec<_> = last_words.collect();
    let Some(last) = last_words.last() else {
        found.open.push(sent.id.clone());
        return false;
    };
    if last_words.len() > 1 {
        let words: Vec<_> = last_words.iter().map(|one| one.to_string()).collect();
        found.twofold.push(format!("{}: {}", sent.id, words.join(" and ")));
    }
    let is_right = match sent.kind {
        Kind::Request => {
            last["packet_action"] == "reply" && last["message"]["echo"]["ask"] == sent.id.as_str()
        }
        _ => last["packet_action"] == "receipt",
    };
    if !is_right {
        found.wrong.push(format!("{}: {last}", sent.id));
    }
    is_right
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(offset: u64, id: &str, to: &[&str]) -> Entry {
        let body = json!({"id": id, "to": to});
        let to = to.iter().map(|name| (*name).to_owned()).collect();
        Entry { source: "OUT_CHAT", offset, to, body }
    }

    fn heard(entry: &Entry) -> Followed {
        let packet = json!({"message": entry.body});
        Followed { source: entry.source.to_owned(), offset: entry.offset, packet }
    }

    fn page(heard: Vec<Followed>, outcomes: &[(Kind, &str, Value)]) -> Page {
        let sent = outcomes.iter().map(|(kind, id, outcomes)| Sent {
            id: (*id).to_owned(),
            kind: *kind,
            outcomes: outcomes.as_array().cloned().unwrap_or_default(),
        });
        Page { name: "ana".to_owned(), sent: sent.collect(), heard, ..Page::default() }
    }

    fn check(page: Page, done: &[(&str, u64)], want: (u64, u64, usize)) {
        let entries = [entry(1, "a", &[]), entry(2, "b", &["bob"]), entry(4, "c", &["ana", "bob"])];
        let done = done.iter().map(|(id, times)| ((*id).to_owned(), *times)).collect();
        let tally = reconcile(&[page], &entries, &done, true);
        assert_eq!((tally.lost, tally.duplicated, tally.unexpected.len()), want, "{tally:?}");
    }

    #[test]
    fn each_kind_of_trouble_is_told() {
        let (a, b, c) =
            (entry(1, "a", &[]), entry(2, "b", &["bob"]), entry(4, "c", &["ana", "bob"]));
        let all = || vec![heard(&a), heard(&c)];
        let receipt = |id: &str| json!([{"packet_action": "receipt", "id": id}]);
        let say = Kind::Broadcast("chat");
        check(page(all(), &[(say, "a", receipt("a"))]), &[], (0, 0, 0));
        check(page(vec![heard(&a)], &[]), &[], (1, 0, 0));
        check(page(vec![heard(&a), heard(&b), heard(&c)], &[]), &[], (0, 0, 1));
        check(page(vec![heard(&a), heard(&entry(4, "x", &[]))], &[]), &[], (0, 0, 1));
        check(page(all(), &[(say, "gone", receipt("gone"))]), &[], (1, 0, 0));
        check(page(all(), &[(say, "a", json!([]))]), &[], (0, 0, 1));

        let reply = json!({"packet_action": "reply", "message": {"echo": {"ask": "r"}}});
        let (late, away) = (json!({"code": "timeout"}), json!({"code": "unavailable"}));
        let asks = |outcomes| page(all(), &[(Kind::Request, "r", outcomes)]);
        check(asks(json!([away, reply])), &[("r", 1)], (0, 0, 0));
        check(asks(json!([reply])), &[("r", 3)], (0, 2, 0));
        check(asks(json!([reply])), &[], (1, 0, 0));
        check(asks(json!([late, reply])), &[("r", 1)], (0, 0, 1));
        check(asks(json!([late])), &[], (0, 0, 1));
        let missed = Page { gaps: vec!["OUT_CHAT".to_owned()], ..page(all(), &[]) };
        check(missed, &[], (0, 0, 1));
    }

    #[test]
    fn deeds_are_read_from_the_logs_of_all_servers() {
        let logs = [
            "starts\nworks on {\"ask\":\"a\"}\n".to_owned(),
            "works on {\"ask\":\"a\"}\nworks on {\"say\":\"b\"}\nworks on {\"as".to_owned(),
        ];
        let wanted = [("a".to_owned(), 2), ("b".to_owned(), 1)];
        assert_eq!(deeds(&logs), BTreeMap::from(wanted));
    }
}
