//! What is published. Pure.

use std::io::Write as _;

/// What is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Reports of agents, on `agent/message`.
    ///
    /// The first metric, `sent`, is the moment at which the message was due, in microseconds since
    /// 1970; so what stores it can be asked how long that took.
    Numbered {
        /// Agents that each client reports for in turn.
        agents: usize,
        /// Metrics of a message.
        metrics: usize,
    },
    /// Bytes without meaning.
    Opaque {
        /// Where to.
        topic: String,
        /// How many.
        bytes: usize,
    },
}

impl Shape {
    /// Where it is published.
    pub fn topic(&self) -> &str {
        match self {
            Self::Numbered { .. } => "agent/message",
            Self::Opaque { topic, .. } => topic,
        }
    }
}

/// Digits of a moment in microseconds since 1970, until the year 2286.
const DUE_DIGITS: usize = 16;

/// Makes the payloads of one client.
#[derive(Debug)]
pub(crate) struct Messages {
    heads: Vec<String>,
    /// Whether the moment follows, at which the message is due.
    is_dated: bool,
    tail: String,
    next: usize,
}

impl Messages {
    pub(crate) fn of(shape: &Shape, name: &str, client: usize) -> Self {
        let (heads, is_dated, tail) = match shape {
            Shape::Numbered { agents, metrics } => {
                let head = |agent: usize| {
                    format!(
                        r#"{{"agent": {{"uuid": "{name}-{client}-{agent}", "username": "platzi", "name": "platzi", "hostname": "platzibogota", "pid": 10}}, "metrics": [{{"type": "sent", "value": "#
                    )
                };
                let mut tail = "}".to_owned();
                for number in 1..*metrics {
                    tail += &format!(r#", {{"type": "temperature-{number}", "value": 21.5}}"#);
                }
                ((0..(*agents).max(1)).map(head).collect(), true, tail + "]}")
            }
            Shape::Opaque { bytes, .. } => (vec![String::new()], false, "x".repeat(*bytes)),
        };
        Self { heads, is_dated, tail, next: 0 }
    }

    /// The same, but opaque bytes begin with the moment at which they are due: 16 digits, of which
    /// none is left out where fewer bytes are asked for.
    pub(crate) fn dated(shape: &Shape, name: &str, client: usize) -> Self {
        let mut messages = Self::of(shape, name, client);
        if !messages.is_dated {
            messages.is_dated = true;
            messages.tail.truncate(messages.tail.len().saturating_sub(DUE_DIGITS));
        }
        messages
    }

    /// Appends the next payload; `due` is in microseconds since 1970.
    pub(crate) fn write(&mut self, due: u64, out: &mut Vec<u8>) {
        let head = &self.heads[self.next];
        self.next = (self.next + 1) % self.heads.len();
        out.extend_from_slice(head.as_bytes());
        if self.is_dated {
            // Writing to memory does not fail.
            let _ = write!(out, "{due}");
        }
        out.extend_from_slice(self.tail.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(shape: &Shape, count: u64) -> Vec<String> {
        let mut messages = Messages::of(shape, "bench", 3);
        let text = |number| {
            let mut out = Vec::new();
            messages.write(number, &mut out);
            String::from_utf8(out).unwrap()
        };
        (0..count).map(text).collect()
    }

    #[test]
    fn agents_take_turns() {
        let texts = texts(&Shape::Numbered { agents: 2, metrics: 3 }, 3);
        for (text, agent) in texts.iter().zip(["bench-3-0", "bench-3-1", "bench-3-0"]) {
            assert!(text.contains(&format!("\"uuid\": \"{agent}\"")), "{text}");
            assert_eq!(text.matches("\"type\"").count(), 3);
        }
        assert!(texts[2].contains(r#""type": "sent", "value": 2}"#), "{}", texts[2]);
    }

    #[test]
    fn about_200_bytes_with_two_metrics() {
        let texts = texts(&Shape::Numbered { agents: 1, metrics: 2 }, 1);
        assert!((180..=220).contains(&texts[0].len()), "{} bytes", texts[0].len());
    }

    #[test]
    fn dated_bytes() {
        let shape = |bytes| Shape::Opaque { topic: "t".into(), bytes };
        for (bytes, want) in [(18, "1780000000000000xx"), (3, "1780000000000000")] {
            let mut out = Vec::new();
            Messages::dated(&shape(bytes), "bench", 0).write(1_780_000_000_000_000, &mut out);
            assert_eq!(out, want.as_bytes());
        }
    }

    #[test]
    fn opaque_bytes() {
        assert_eq!(texts(&Shape::Opaque { topic: "t".into(), bytes: 3 }, 2), ["xxx", "xxx"]);
    }
}
