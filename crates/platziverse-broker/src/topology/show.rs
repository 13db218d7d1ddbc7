//! A topology as a table, and its values as JSON.

use std::fmt;

use serde::{Serialize, Serializer};

use super::{Argument, Binding, Destination, Exchange, Kind, Queue, Topology, Value};

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(number) => serializer.serialize_i64(*number),
            Self::Word(word) => serializer.serialize_str(word),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Word(word) => word.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, key, destination } = self;
        let (kind, name) = match destination {
            Destination::Queue(name) => ("queue", name),
            Destination::Exchange(name) => ("exchange", name),
        };
        write!(f, "{source:<22} {key:<20} {kind} {name}")
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "EXCHANGE               KIND    ELSE")?;
        for Exchange { name, kind, alternate } in &self.exchanges {
            let kind = match kind {
                Kind::Topic => "topic",
                Kind::Direct => "direct",
                Kind::Fanout => "fanout",
            };
            writeln!(f, "{name:<22} {kind:<7} {}", alternate.unwrap_or("-"))?;
        }
        writeln!(f, "\nQUEUE")?;
        for Queue { name, arguments, if_missing } in &self.queues {
            writeln!(f, "{name}{}", if *if_missing { " (if there is none yet)" } else { "" })?;
            for Argument { name, value } in arguments {
                writeln!(f, "  {name:<23} {value}")?;
            }
        }
        writeln!(f, "\nFROM                   KEY                  TO")?;
        for binding in &self.bindings {
            writeln!(f, "{binding}")?;
        }
        if !self.unbindings.is_empty() {
            writeln!(f, "\nNO LONGER FROM         KEY                  TO")?;
        }
        for binding in &self.unbindings {
            writeln!(f, "{binding}")?;
        }
        Ok(())
    }
}
