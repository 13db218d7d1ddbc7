//! The kinds of values, how each is written in the environment and what it may be.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use platziverse_protocol::topic::TopicFilter;
use serde_json::{Map, Value};
use tracing_subscriber::EnvFilter;

use crate::hash;
use crate::host::{self, HostPattern};
use crate::problem::{Fault, Problem, Problems, key_shown};
use crate::schema::{Key, named, nearest};
use crate::secret::REDACTED;

/// What a value is.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Text of so many bytes, without U+0000.
    Text { min: usize, max: usize },
    /// Host name or IP address; if `socket`, also a directory.
    Host { socket: bool },
    /// Name of at most so many bytes of a queue that may be declared: among Platziverse's own, only
    /// one of `ours`.
    Queue { max: usize, ours: &'static [&'static str] },
    /// Hosts that may be called.
    HostPattern,
    /// An MQTT topic filter.
    Filter,
    /// A password's hash.
    PasswordHash,
    /// A whole number in a range.
    Whole { min: u64, max: u64 },
    /// `true` or `false`.
    Flag,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A duration in a range.
    Span { min: Duration, max: Duration },
    /// IP address and port to listen on.
    Address,
    /// A URL such as the one given here; its parts are checked where it is taken apart.
    Url(&'static str),
    /// Directives of a log filter.
    Directives,
    /// A list with at least so many items.
    List { min: usize, item: &'static Kind },
    /// A list of tables.
    Rows(&'static [Key]),
}

/// What the names of Platziverse's own queues begin with.
const OURS: &str = "platziverse.";

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl Kind {
    /// The value that text from the environment stands for. Text that is none of this kind stays
    /// text, to be refused when it is checked.
    pub(crate) fn read(self, text: &str) -> Value {
        let word = text.trim();
        match self {
            Self::Text { .. } | Self::Host { .. } | Self::Queue { .. } => text.into(),
            Self::Filter | Self::PasswordHash => text.into(),
            Self::Choice(_) | Self::Span { .. } | Self::Address | Self::Url(_) => word.into(),
            Self::Directives | Self::HostPattern => word.into(),
            Self::Whole { .. } => word.parse::<u64>().map_or_else(|_| text.into(), Value::from),
            Self::Flag => match word {
                "true" | "1" => true.into(),
                "false" | "0" => false.into(),
                _ => text.into(),
            },
            Self::List { item, .. } if !word.starts_with('[') => word
                .split(',')
                .map(str::trim)
                .filter(|part| !part.is_empty())
                .map(|part| item.read(part))
                .collect(),
            Self::Rows(_) if word.is_empty() => Value::Array(Vec::new()),
            Self::List { .. } | Self::Rows(_) => {
                serde_json::from_str(word).unwrap_or_else(|_| text.into())
            }
        }
    }

    /// In words, what is allowed.
    pub(crate) fn allowed(self) -> String {
        match self {
            Self::Text { min: 0, max } => format!("text of at most {max} bytes"),
            Self::Text { min, max } => format!("text of {min} to {max} bytes"),
            Self::Host { socket: false } => {
                "a host name or an IP address, without a port".to_owned()
            }
            Self::Host { socket: true } => "a host name, an IP address or the directory of a \
                                            Unix socket, without a port"
                .to_owned(),
            Self::Queue { max, ours } => queues_allowed(max, ours),
            Self::HostPattern => host::ALLOWED.to_owned(),
            Self::Filter => "an MQTT topic filter, such as \"agent/#\"".to_owned(),
            Self::PasswordHash => hash::ALLOWED.to_owned(),
            Self::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Self::Flag => "true or false".to_owned(),
            Self::Choice(words) => one_of(words),
            Self::Span { min, max } => format!(
                "a duration such as \"5s\" or \"500ms\", from {} to {}",
                humantime::format_duration(min),
                humantime::format_duration(max)
            ),
            Self::Address => "an IP address and a port, such as \"127.0.0.1:9100\"".to_owned(),
            Self::Url(example) => format!("a URL such as {example}"),
            Self::Directives => format!(
                "{}, or directives without spaces such as \"info,platziverse_gateway=debug\"",
                one_of(&LEVELS)
            ),
            Self::List { min: 0, .. } => "a list".to_owned(),
            Self::List { min, .. } => format!("a list of at least {min}"),
            Self::Rows(keys) => {
                let names: Vec<&str> = keys.iter().map(|key| key.name).collect();
                format!("a list of tables with {}", names.join(", "))
            }
        }
    }

    /// Whether `value` is one of this kind; of lists, the items are looked at elsewhere.
    fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text { min, max }, Value::String(text)) => is_text(text, min, max),
            (Self::Host { socket }, Value::String(text)) => is_host(text, socket),
            (Self::Queue { max, ours }, Value::String(text)) => is_queue(text, max, ours),
            (Self::HostPattern, Value::String(text)) => text.parse::<HostPattern>().is_ok(),
            (Self::Filter, Value::String(text)) => TopicFilter::parse(text).is_ok(),
            (Self::PasswordHash, Value::String(text)) => hash::check(text).is_ok(),
            (Self::Whole { min, max }, value) => {
                value.as_u64().is_some_and(|number| (min..=max).contains(&number))
            }
            (Self::Flag, value) => value.is_boolean(),
            (Self::Choice(words), Value::String(text)) => words.contains(&text.as_str()),
            (Self::Span { min, max }, Value::String(text)) => humantime::parse_duration(text)
                .is_ok_and(|duration| (min..=max).contains(&duration)),
            (Self::Address, Value::String(text)) => text.parse::<SocketAddr>().is_ok(),
            (Self::Url(_), value) => value.is_string(),
            (Self::Directives, Value::String(text)) => {
                text.split(',').all(is_directive) && EnvFilter::try_new(text).is_ok()
            }
            (Self::List { min, .. }, Value::Array(items)) => items.len() >= min,
            (Self::Rows(_), value) => value.is_array(),
            _ => false,
        }
    }
}

/// Adds what is wrong with `value`, which the setting `at` has. Nothing of it is shown if it is
/// `hidden`, whatever the setting.
pub(crate) fn check(key: &Key, at: &str, value: &Value, hidden: bool, problems: &mut Problems) {
    let hidden = hidden || key.secret;
    if !key.kind.accepts(value) {
        // Rows may hold secrets anywhere in what could not be read.
        let hidden = hidden || matches!(key.kind, Kind::Rows(_));
        return problems.wrong(at, key.kind.refused(value, hidden), key.kind.allowed());
    }
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        let at = format!("{at}[{index}]");
        match (key.kind, item) {
            (Kind::Rows(keys), Value::Object(row)) => check_row(keys, &at, row, hidden, problems),
            (Kind::Rows(_), _) => problems.wrong(at, found(item, true), "a table"),
            (Kind::List { item: kind, .. }, _) if !kind.accepts(item) => {
                problems.wrong(at, kind.refused(item, hidden), kind.allowed());
            }
            _ => {}
        }
    }
}

fn check_row(
    keys: &'static [Key],
    at: &str,
    row: &Map<String, Value>,
    hidden: bool,
    problems: &mut Problems,
) {
    for key in keys {
        match row.get(key.name) {
            Some(value) if value.as_str() == Some(REDACTED) && key.secret => {}
            Some(value) => check(key, &format!("{at}.{}", key.name), value, hidden, problems),
            None if key.optional => {}
            None => problems.wrong(format!("{at}.{}", key.name), "nothing", key.kind.allowed()),
        }
    }
    for name in row.keys().filter(|name| named(keys, name).is_none()) {
        let names = keys.iter().map(|key| key.name.to_owned());
        problems.0.push(Problem {
            origin: None,
            key: format!("{at}.{}", key_shown(name)),
            fault: Fault::Unknown { nearest: nearest(name, names) },
        });
    }
}

impl Kind {
    /// A value that is none of this kind, for an error, with the reason where it is not plain.
    fn refused(self, value: &Value, hidden: bool) -> String {
        let text = value.as_str().unwrap_or_default();
        let hidden = hidden || matches!(self, Self::Host { .. }) && !is_host_and_port(text);
        let shown = found(value, hidden);
        let reason = match self {
            Self::Filter if value.is_string() => {
                TopicFilter::parse(text).err().map(|error| error.to_string())
            }
            Self::PasswordHash if value.is_string() => hash::check(text).err(),
            _ => None,
        };
        reason.map_or(shown.clone(), |reason| format!("{shown} ({reason})"))
    }
}

/// A value for an error, cut where it is long, and hidden where it may hold a password although
/// it should not.
pub(crate) fn found(value: &Value, hidden: bool) -> String {
    const LENGTH: usize = 80;
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Object(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Number(_) if hidden => "a number".to_owned(),
        _ if hidden => REDACTED.to_owned(),
        Value::String(text) if text.contains('@') || text.contains("://") => REDACTED.to_owned(),
        value => {
            let text = value.to_string();
            match text.char_indices().nth(LENGTH) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

fn one_of(words: &[&str]) -> String {
    match words {
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
        [] => String::new(),
    }
}

// U+FFFD stands where the environment had bytes that are not UTF-8.
fn is_text(text: &str, min: usize, max: usize) -> bool {
    (min..=max).contains(&text.len()) && !text.contains(['\0', '\u{fffd}'])
}

fn is_host(text: &str, socket: bool) -> bool {
    if socket && text.starts_with('/') {
        return is_text(text, 1, 107);
    }
    let name = |c: char| c.is_alphanumeric() || "-._".contains(c);
    text.parse::<Ipv6Addr>().is_ok() || (is_text(text, 1, 253) && text.chars().all(name))
}

/// Whether what stands where a host should has no more in it than a host and a port. A URL, or
/// parts of one, may have a password.
fn is_host_and_port(text: &str) -> bool {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => text,
    };
    !host.contains([':', '/', '@'])
}

fn is_queue(text: &str, max: usize, ours: &[&str]) -> bool {
    let is_free = !text.starts_with("amq.") && !text.starts_with(OURS);
    is_text(text, 1, max) && (is_free || ours.contains(&text))
}

fn queues_allowed(max: usize, ours: &[&str]) -> String {
    let but = if ours.is_empty() { String::new() } else { format!(" other than {}", one_of(ours)) };
    format!("a queue's name: 1 to {max} bytes that do not begin with `amq.` or `{OURS}`{but}")
}

fn is_directive(text: &str) -> bool {
    let level = |word: &str| {
        let word = word.to_ascii_lowercase();
        LEVELS.contains(&word.as_str())
            || matches!(word.as_str(), "0" | "1" | "2" | "3" | "4" | "5")
    };
    // A bare word that is no level would be taken for a target, and a misspelt level with it; and
    // a space for a part of the target.
    match text.rsplit_once('=') {
        _ if text.contains(char::is_whitespace) => false,
        Some((target, word)) => !target.is_empty() && level(word),
        None => level(text) || text.contains('['),
    }
}
