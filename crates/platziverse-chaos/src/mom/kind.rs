//! What is published where, and who receives it. Pure.

use platziverse_client::Kind;
use serde_json::json;

/// Whoever publishes: each is a user of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Publisher {
    /// One message after the other over HTTP.
    Http,
    /// Over gRPC streams.
    Grpc,
}

/// Where it is published, for the whole round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A queue whose messages are lent.
    Lent,
    /// A queue that is consumed by streams.
    Streamed,
    /// A queue whose messages are gone with the answer.
    Auto,
    /// A topic.
    News,
}

/// What consumers take from: a queue, or a subscriber's part of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mailbox {
    /// The queue of that name.
    Lent,
    /// The queue of that name.
    Streamed,
    /// The queue of that name.
    Auto,
    /// The topic's messages for who publishes over HTTP, lent.
    NewsOfHttp,
    /// The topic's messages for who publishes over gRPC, by a stream.
    NewsOfGrpc,
    /// The topic's messages for somebody who publishes nothing, by a stream.
    NewsOfReader,
    /// The topic's messages for somebody who subscribes and leaves all the time.
    Fleeting,
}

/// The start of the names of what is there for the whole round.
pub const LASTING: &str = "load-";

impl Address {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lent, Self::Streamed, Self::Auto, Self::News];

    /// Each in its turn.
    pub fn of(turn: usize) -> Self {
        Self::ALL[turn % Self::ALL.len()]
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        if self == Self::News { Kind::Topic } else { Kind::Queue }
    }

    /// Its name.
    pub fn name(self) -> String {
        let name = match self {
            Self::Lent => "lent",
            Self::Streamed => "streamed",
            Self::Auto => "auto",
            Self::News => "news",
        };
        format!("{LASTING}{name}")
    }

    /// Where it is over HTTP.
    pub fn path(self) -> String {
        let kind = if self.kind() == Kind::Topic { "topics" } else { "queues" };
        format!("/v1/{kind}/{}", self.name())
    }

    /// The least number of receivers that a publish may be told of.
    pub fn receivers(self) -> u64 {
        if self == Self::News { 2 } else { 1 }
    }
}

impl Mailbox {
    /// Those from which everything must come.
    pub const LASTING: [Self; 6] = [
        Self::Lent,
        Self::Streamed,
        Self::Auto,
        Self::NewsOfHttp,
        Self::NewsOfGrpc,
        Self::NewsOfReader,
    ];

    /// What its messages are published to.
    pub fn address(self) -> Address {
        match self {
            Self::Lent => Address::Lent,
            Self::Streamed => Address::Streamed,
            Self::Auto => Address::Auto,
            Self::NewsOfHttp | Self::NewsOfGrpc | Self::NewsOfReader | Self::Fleeting => {
                Address::News
            }
        }
    }

    /// The publisher whose part of the topic it is: what that one publishes is not for it.
    pub fn own(self) -> Option<Publisher> {
        match self {
            Self::NewsOfHttp => Some(Publisher::Http),
            Self::NewsOfGrpc => Some(Publisher::Grpc),
            _ => None,
        }
    }

    /// Whether it must receive what this publisher publishes there.
    pub fn receives(self, publisher: Publisher, address: Address) -> bool {
        self.address() == address && self.own() != Some(publisher)
    }
}

/// The body of the message with this number.
pub fn body(number: u64, publisher: Publisher, to: Address) -> String {
    json!({ "number": number, "publisher": format!("{publisher:?}"), "to": to.name() }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_leaves_its_publisher_out() {
        let receivers = |publisher, address| {
            let gets = |mailbox: &&Mailbox| mailbox.receives(publisher, address);
            Mailbox::LASTING.iter().filter(gets).copied().collect::<Vec<_>>()
        };
        for publisher in [Publisher::Http, Publisher::Grpc] {
            assert_eq!(receivers(publisher, Address::Lent), [Mailbox::Lent]);
        }
        let readers = [Mailbox::NewsOfGrpc, Mailbox::NewsOfReader];
        assert_eq!(receivers(Publisher::Http, Address::News), readers);
        let readers = [Mailbox::NewsOfHttp, Mailbox::NewsOfReader];
        assert_eq!(receivers(Publisher::Grpc, Address::News), readers);
    }
}
