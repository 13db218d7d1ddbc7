//! MQTT topic names and filters, and the AMQP keys that carry them.
//!
//! An AMQP topic key separates words by `.` and MQTT separates levels by `/`, so the two
//! characters change places: `plant.1/temp` becomes `plant/1.temp`. That is one to one, so two
//! topics never share a key (except long ones, see [`routing_key`]).

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};

/// The topic on which agents publish their metrics.
pub const AGENT_MESSAGE: &str = "agent/message";
/// The topic on which a gateway announces that an agent is connected.
pub const AGENT_CONNECTED: &str = "agent/connected";
/// The topic on which it is announced that an agent is disconnected.
pub const AGENT_DISCONNECTED: &str = "agent/disconnected";

/// The longest AMQP key, in bytes (AMQP 0-9-1, shortstr).
pub const KEY_BYTES_MAX: usize = 255;

/// The last word of the key of a topic that is too long for a key. It stands for the topic level
/// `.cut`; a topic that really ends so merely reaches more queues than it needs to.
const CUT_MARK: &str = "/cut";

/// Why a text is no topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// MQTT-4.7.3-1: at least one character.
    #[error("the topic is empty")]
    Empty,
    /// MQTT-4.7.3-3: at most 65,535 bytes.
    #[error("the topic is longer than 65,535 bytes")]
    TooLong,
    /// MQTT-4.7.3-2: no U+0000.
    #[error("the topic contains U+0000")]
    Nul,
    /// MQTT-3.3.2-2: a topic name has no wildcards.
    #[error("a topic name must not contain the wildcards + and #")]
    Wildcard,
    /// MQTT-4.7.1-2: `#` is the last level, alone.
    #[error("the wildcard # must be the whole of the last level")]
    MultiLevel,
    /// MQTT-4.7.1-3: `+` is a whole level.
    #[error("the wildcard + must be the whole of a level")]
    SingleLevel,
}

/// A valid topic filter: what a client subscribes to (MQTT 5, section 4.7.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct TopicFilter(Box<str>);

/// Checks `text` as a topic name: what a message is published to (MQTT 5, section 4.7).
pub fn check_name(text: &str) -> Result<(), TopicError> {
    check_text(text)?;
    if text.bytes().any(|b| b == b'+' || b == b'#') {
        return Err(TopicError::Wildcard);
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), TopicError> {
    match text {
        "" => Err(TopicError::Empty),
        _ if text.len() > usize::from(u16::MAX) => Err(TopicError::TooLong),
        _ if text.bytes().any(|b| b == 0) => Err(TopicError::Nul),
        _ => Ok(()),
    }
}

impl TopicFilter {
    /// `#`: every topic but those that begin with `$`.
    pub fn every_topic() -> Self {
        Self("#".into())
    }

    /// Checks `text` as a topic filter.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        check_text(text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return Err(TopicError::MultiLevel);
            }
            if level.contains('+') && level != "+" {
                return Err(TopicError::SingleLevel);
            }
        }
        Ok(Self(text.into()))
    }

    /// Whether a message on `topic` goes to subscribers of this filter.
    ///
    /// `topic` is a topic name. A filter that starts with a wildcard does not match a topic that
    /// starts with `$` (MQTT-4.7.2-1).
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && (self.starts_with('+') || self.starts_with('#')) {
            return false;
        }
        let mut names = topic.split('/');
        for level in self.split('/') {
            if level == "#" {
                return true;
            }
            match names.next() {
                Some(name) if level == "+" || level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

impl TopicFilter {
    /// Whether every topic that `other` matches is matched by this filter too.
    pub fn covers(&self, other: &Self) -> bool {
        let wild = |filter: &Self| filter.starts_with('+') || filter.starts_with('#');
        if other.starts_with('$') && wild(self) {
            return false;
        }
        let mut asked = other.split('/');
        for level in self.split('/') {
            if level == "#" {
                return true;
            }
            match asked.next() {
                Some("#") | None => return false,
                Some(name) if level == "+" || level == name => {}
                Some(_) => return false,
            }
        }
        asked.next().is_none()
    }
}

impl<'de> Deserialize<'de> for TopicFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Deref for TopicFilter {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicFilter {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The AMQP routing key of a message on `topic`, at most 255 bytes.
///
/// A topic that is too long is cut at a level, and a mark ends its key; queues that may want it
/// are bound to [`cut_binding_key`] too.
pub fn routing_key(topic: &str) -> String {
    let key: String = topic.chars().map(swap).collect();
    if key.len() <= KEY_BYTES_MAX {
        return key;
    }
    let room = KEY_BYTES_MAX - CUT_MARK.len() - 1;
    match key.char_indices().take_while(|(at, _)| *at <= room).filter(|(_, c)| *c == '.').last() {
        Some((end, _)) => format!("{}.{CUT_MARK}", &key[..end]),
        None => CUT_MARK.to_owned(),
    }
}

/// The AMQP binding key under which messages for `filter` arrive, at most 255 bytes.
///
/// It may let more through than the filter, never less; topics that were cut are caught by
/// [`cut_binding_key`].
pub fn binding_key(filter: &TopicFilter) -> String {
    let mut key = String::with_capacity(filter.len());
    for (index, level) in filter.split('/').enumerate() {
        let word: String = match level {
            "+" => "*".to_owned(),
            level => level.chars().map(swap).collect(),
        };
        // Two bytes stay free for the ".#" of a filter that is too long.
        if key.len() + word.len() + 1 > KEY_BYTES_MAX - 2 {
            key.push_str(if index == 0 { "#" } else { ".#" });
            return key;
        }
        if index > 0 {
            key.push('.');
        }
        key.push_str(&word);
    }
    key
}

/// The binding key of every message whose topic is too long for a routing key.
pub fn cut_binding_key() -> String {
    format!("#.{CUT_MARK}")
}

fn swap(c: char) -> char {
    match c {
        '/' => '.',
        '.' => '/',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |text: &str, want: Result<(), TopicError>| {
            assert_eq!(check_name(text), want, "{text:?}");
        };
        check("agent/message", Ok(()));
        check("/", Ok(()));
        check("a//b", Ok(()));
        check("a b/ü", Ok(()));
        check("$SYS/x", Ok(()));
        check("", Err(TopicError::Empty));
        check("a/+", Err(TopicError::Wildcard));
        check("a/b#", Err(TopicError::Wildcard));
        check("a\0b", Err(TopicError::Nul));
        check(&"x".repeat(65_536), Err(TopicError::TooLong));
    }

    #[test]
    fn filters() {
        let check = |text: &str, want: Result<(), TopicError>| {
            assert_eq!(TopicFilter::parse(text).map(|_| ()), want, "{text:?}");
        };
        check("#", Ok(()));
        check("+", Ok(()));
        check("+/+/#", Ok(()));
        check("/+", Ok(()));
        check("a/#/b", Err(TopicError::MultiLevel));
        check("a#", Err(TopicError::MultiLevel));
        check("a/b+", Err(TopicError::SingleLevel));
        check("", Err(TopicError::Empty));
        check("a\0", Err(TopicError::Nul));
    }

    #[test]
    fn matching() {
        let check = |filter: &str, topic: &str, want: bool| {
            let filter = TopicFilter::parse(filter).unwrap();
            assert_eq!(filter.matches(topic), want, "{filter} on {topic}");
        };
        check("sport/#", "sport", true);
        check("sport/#", "sport/tennis/p1", true);
        check("sport/#", "sports", false);
        check("sport/+", "sport", false);
        check("sport/+", "sport/", true);
        check("sport/+", "sport/a/b", false);
        check("+/+", "/finance", true);
        check("/+", "/finance", true);
        check("+", "/finance", false);
        check("#", "a/b/c", true);
        check("#", "$SYS/x", false);
        check("+/x", "$SYS/x", false);
        check("$SYS/#", "$SYS/x", true);
        check("a//c", "a//c", true);
        check("a/+/c", "a//c", true);
    }

    #[test]
    fn covering() {
        let check = |filter: &str, other: &str, want: bool| {
            let (filter, other) = (TopicFilter::parse(filter), TopicFilter::parse(other));
            let (filter, other) = (filter.unwrap(), other.unwrap());
            assert_eq!(filter.covers(&other), want, "{filter} over {other}");
        };
        check("#", "a/+/b", true);
        check("#", "#", true);
        check("#", "$SYS/x", false);
        check("$SYS/#", "$SYS/x", true);
        check("a/+", "a/b", true);
        check("a/+", "a/+", true);
        check("a/+", "a/#", false);
        check("a/b", "a/+", false);
        check("a/#", "a", true);
        check("a/#", "b/a", false);
        check("a/b", "a/b/c", false);
    }

    #[test]
    fn keys() {
        let binding = |filter: &str| binding_key(&TopicFilter::parse(filter).unwrap());
        assert_eq!(routing_key("agent/message"), "agent.message");
        assert_eq!(routing_key("plant.1/temp"), "plant/1.temp");
        assert_eq!(binding("agent/+/x/#"), "agent.*.x.#");
        assert_eq!(binding("a.b/+"), "a/b.*");
        assert!(binding(&"x/".repeat(300)).len() <= KEY_BYTES_MAX);
        assert_eq!(binding(&"x".repeat(300)), "#");
        let long = routing_key(&"level/".repeat(100));
        assert!(long.len() <= KEY_BYTES_MAX && long.ends_with("./cut"), "{long}");
        assert_eq!(routing_key(&"x".repeat(300)), "/cut");
    }
}
