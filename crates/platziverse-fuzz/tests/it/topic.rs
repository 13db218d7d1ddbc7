//! Topics, filters and the AMQP keys that carry them, against matchers that are too simple to err.
//! The first line of an input is a filter, the second one a topic or another filter.

use platziverse_broker::topology::{live_binding_keys, sharded_key};
use platziverse_fuzz::{Fate, Input, Target};
use platziverse_protocol::topic::{TopicFilter, check_name, routing_key};
use proptest::test_runner::{TestCaseError, TestCaseResult};
use proptest::{prop_assert, prop_assert_eq};

/// A level that is just too long for a key.
const LONG: &str = concat!(
    "lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll",
    "lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll",
    "lllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll",
);

/// More than the 65,535 bytes of a topic.
const BYTES_MAX: usize = 70_000;

const WORDS: &[&str] = &[
    "/",
    "//",
    "+",
    "#",
    "/+",
    "/#",
    "+/",
    "$",
    "$SYS",
    ".",
    "..",
    "*",
    "*.",
    "#.",
    "/cut",
    ".cut",
    "./cut",
    "agent",
    "message",
    "agent/message",
    "agent/connected",
    "agent/disconnected",
    "agent/+",
    "agent/#",
    "+/message",
    "x/",
    "0",
    "1",
    LONG,
    "\u{e9}",
    "\u{1f600}",
    "\n",
    " ",
];

#[test]
fn topic() {
    Target::new("topic", WORDS, BYTES_MAX).run(check);
}

fn check(input: &Input) -> Result<Fate, TestCaseError> {
    let text = input.text();
    let (first, second) = text.split_once('\n').unwrap_or((&text, ""));
    prop_assert_eq!(check_name(second).is_ok(), is_name(second), "{:?}", second);
    let parsed = TopicFilter::parse(first);
    prop_assert_eq!(parsed.is_ok(), is_filter(first), "{:?}", first);
    let Ok(filter) = parsed else { return Ok(Fate::Refused) };
    prop_assert_eq!(&*filter, first);

    let other = TopicFilter::parse(second).ok();
    for topic in [second.to_owned(), instance(first, second), instance(second, first)] {
        if check_name(&topic).is_ok() {
            carried(&filter, &topic)?;
            if let Some(other) = &other {
                covered(&filter, other, &topic)?;
                covered(other, &filter, &topic)?;
            }
        }
    }
    Ok(Fate::Accepted)
}

/// A topic that `filter` matches, with levels of `other` in the places of its wildcards.
fn instance(filter: &str, other: &str) -> String {
    let mut levels = other.split('/').cycle();
    let mut next = || levels.next().unwrap_or_default();
    let named = filter.split('/').map(|level| match level {
        "+" => next().to_owned(),
        "#" => format!("{}/{}", next(), next()),
        level => level.to_owned(),
    });
    named.collect::<Vec<_>>().join("/")
}

/// Section 4.7.3.
fn is_name(text: &str) -> bool {
    (1..=65_535).contains(&text.len()) && !text.contains(['\0', '+', '#'])
}

/// Section 4.7.1.
fn is_filter(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    let (last, before) = levels.split_last().expect("there is always one level");
    let plain = |level: &str| level == "+" || !level.contains(['+', '#']);
    (1..=65_535).contains(&text.len())
        && !text.contains('\0')
        && (*last == "#" || plain(last))
        && before.iter().all(|level| plain(level))
}

/// Section 4.7: level by level, and what stands before `/#` counts too.
fn naive_matches(filter: &str, topic: &str) -> bool {
    let hidden = topic.starts_with('$') && filter.starts_with(['+', '#']);
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    let (named, open) = match filter.split_last() {
        Some((&"#", named)) => (named, true),
        _ => (&filter[..], false),
    };
    let alike = named.iter().zip(&topic).all(|(level, name)| *level == "+" || level == name);
    let enough = named.len() == topic.len() || (open && named.len() < topic.len());
    !hidden && alike && enough
}

/// How RabbitMQ matches a binding key: `*` is one word, `#` is any number.
fn rabbitmq_matches(binding: &str, key: &str) -> bool {
    let key: Vec<&str> = key.split('.').collect();
    let mut reached = vec![false; key.len() + 1];
    reached[0] = true;
    for word in binding.split('.') {
        let mut next = vec![false; key.len() + 1];
        for at in 0..=key.len() {
            if word == "#" {
                next[at] = reached[..=at].contains(&true);
            } else if at > 0 && (word == "*" || word == key[at - 1]) {
                next[at] = reached[at - 1];
            }
        }
        reached = next;
    }
    reached[key.len()]
}

/// What a filter matches reaches a queue that is bound for it, sharded or not.
fn carried(filter: &TopicFilter, topic: &str) -> TestCaseResult {
    let matches = filter.matches(topic);
    prop_assert_eq!(matches, naive_matches(filter, topic), "{} on {}", filter, topic);
    let (key, bindings) = (routing_key(topic), live_binding_keys(filter));
    for key in bindings.iter().chain([&key]) {
        prop_assert!(key.len() <= 255, "a key of {} bytes: {}", key.len(), key);
    }
    let stored = ["agent/message", "agent/connected", "agent/disconnected"].contains(&topic);
    let mut keys = vec![key.clone()];
    if stored {
        keys.extend([0, 7, 65_534].map(|shard| sharded_key(&key, shard, u16::MAX)));
    }
    for key in keys.iter().filter(|_| matches) {
        let reached = bindings.iter().any(|binding| rabbitmq_matches(binding, key));
        prop_assert!(reached, "{} needs {}, bound is {:?}", filter, key, bindings);
    }
    Ok(())
}

/// What covers another filter matches all that it matches.
fn covered(filter: &TopicFilter, other: &TopicFilter, topic: &str) -> TestCaseResult {
    prop_assert!(filter.covers(filter), "{} does not cover itself", filter);
    if filter.covers(other) && other.matches(topic) {
        prop_assert!(filter.matches(topic), "{} covers {}, not {}", filter, other, topic);
    }
    Ok(())
}
