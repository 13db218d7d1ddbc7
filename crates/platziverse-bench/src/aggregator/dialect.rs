//! What is said over a WebSocket: our packets, or the STOMP of RabbitMQ's plugin. Pure.

use platziverse_testkit::World;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::mom::{BYTES, number};

/// The channels that there are.
pub(crate) const CHANNELS: [&str; 3] = ["voice", "chat", "tickets"];
/// The queue of servers, before the plugin.
pub(crate) const QUEUE: &str = "IN";

/// A language that clients speak with a server.
#[derive(Clone, Debug)]
pub(crate) enum Dialect {
    /// Ours, `platziverse.v1`.
    Packets,
    /// STOMP 1.2: what a client says first.
    Stomp(String),
}

/// Where a message goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To<'a> {
    /// To the servers of a channel.
    Servers(usize),
    /// To all clients of a channel.
    Everyone(usize),
    /// To one client, which takes the first channel.
    Client(&'a str),
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A message of a channel, by its number.
    Message(usize, u64),
    /// What was sent under this number has arrived.
    Receipt(u64),
    /// The reply to the request of this number.
    Reply(u64),
    /// Nothing that counts.
    Other,
}

#[derive(Deserialize)]
struct Packet<'a> {
    packet_action: &'a str,
    id: Option<&'a str>,
    channel: Option<&'a str>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

impl Dialect {
    /// STOMP, in a vhost, with the user of its servers.
    pub(crate) fn stomp(world: &World, username: &str, password: &str) -> Self {
        let vhost = world.vhost();
        Self::Stomp(format!(
            "CONNECT\naccept-version:1.2\nhost:{vhost}\nlogin:{username}\npasscode:{password}\n\n\0"
        ))
    }

    /// The address of a client's WebSocket, and its subprotocol.
    pub(crate) fn address(&self, client: &str) -> (String, &'static str) {
        match self {
            Self::Packets => (format!("/ws?client={client}"), "platziverse.v1"),
            Self::Stomp(_) => ("/ws".to_owned(), "v12.stomp"),
        }
    }

    /// What a client says first, if it does.
    pub(crate) fn greeting(&self) -> Option<&str> {
        match self {
            Self::Packets => None,
            Self::Stomp(connect) => Some(connect),
        }
    }

    /// Takes all that comes for a client over a channel. The receipt has the channel's number.
    pub(crate) fn subscribe(&self, client: &str, channel: usize) -> Vec<String> {
        let name = CHANNELS[channel];
        match self {
            Self::Packets => vec![format!(
                r#"{{"packet_action":"consume","id":"{channel}","channel":{{"{name}":true}}}}"#
            )],
            Self::Stomp(_) => [name.to_owned(), format!("client.{client}")]
                .iter()
                .enumerate()
                // One receipt is enough: they are answered in order.
                .map(|(place, key)| {
                    let receipt = if place == 1 { format!("receipt:{channel}\n") } else { String::new() };
                    format!(
                        "SUBSCRIBE\nid:{channel}-{place}\ndestination:/exchange/amq.topic/{key}\n{receipt}\n\0"
                    )
                })
                .collect(),
        }
    }

    /// Sends the message of a number, and asks for its receipt.
    pub(crate) fn publish(&self, to: To<'_>, number: u64) -> String {
        match self {
            Self::Packets => {
                let (channel, distribution) = match to {
                    To::Servers(channel) => (channel, String::new()),
                    To::Everyone(channel) => {
                        (channel, r#""distribution":{"broadcast":true},"#.to_owned())
                    }
                    To::Client(id) => (0, format!(r#""distribution":{{"direct":["{id}"]}},"#)),
                };
                let name = CHANNELS[channel];
                format!(
                    r#"{{"packet_action":"publish","id":"{number}","channel":{{"{name}":true}},{distribution}"message":"{number:<BYTES$}"}}"#
                )
            }
            Self::Stomp(_) => {
                let destination = match to {
                    To::Servers(_) => format!("/amq/queue/{QUEUE}\npersistent:true"),
                    To::Everyone(channel) => format!("/exchange/amq.topic/{}", CHANNELS[channel]),
                    To::Client(id) => format!("/exchange/amq.topic/client.{id}"),
                };
                format!("SEND\ndestination:{destination}\nreceipt:{number}\n\n{number:<BYTES$}\0")
            }
        }
    }

    /// Asks the servers of the first channel, and what the request's number is.
    pub(crate) fn request(number: u64) -> String {
        let name = CHANNELS[0];
        format!(
            r#"{{"packet_action":"request","id":"{number}","channel":{{"{name}":true}},"deadline_ms":30000,"message":"{number:<BYTES$}"}}"#
        )
    }

    /// Reads what a server says. That something went wrong is an error.
    pub(crate) fn read(&self, text: &str) -> Result<Heard, String> {
        match self {
            Self::Packets => packet(text),
            Self::Stomp(_) => frame(text),
        }
        .ok_or_else(|| format!("the server said: {}", text.trim_end_matches('\0')))?
    }
}

/// None of what is not known or says that something went wrong.
fn packet(text: &str) -> Option<Result<Heard, String>> {
    let packet: Packet<'_> = serde_json::from_str(text).ok()?;
    let id = || packet.id?.parse().ok();
    match packet.packet_action {
        "message" => {
            let channel = channel(packet.channel?)?;
            let body = packet.message?.get().trim_matches('"');
            Some(number(body.as_bytes()).map(|number| Heard::Message(channel, number)))
        }
        "receipt" => Some(Ok(Heard::Receipt(id()?))),
        "reply" => Some(Ok(Heard::Reply(id()?))),
        "welcome" | "ping" | "pong" => Some(Ok(Heard::Other)),
        _ => None,
    }
}

fn frame(text: &str) -> Option<Result<Heard, String>> {
    let (head, body) = text.split_once("\n\n")?;
    let mut lines = head.lines();
    let command = lines.next()?;
    let header = |name: &str| {
        head.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| *key == name)
    };
    match command {
        "MESSAGE" => {
            let (channel, _) = header("subscription")?.1.split_once('-')?;
            let channel = channel.parse().ok()?;
            let body = body.trim_end_matches(['\0', '\n']);
            Some(number(body.as_bytes()).map(|number| Heard::Message(channel, number)))
        }
        "RECEIPT" => Some(Ok(Heard::Receipt(header("receipt-id")?.1.parse().ok()?))),
        "CONNECTED" => Some(Ok(Heard::Other)),
        _ => None,
    }
}

fn channel(name: &str) -> Option<usize> {
    CHANNELS.iter().position(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stomp() -> Dialect {
        Dialect::Stomp(String::new())
    }

    #[test]
    fn packets_are_read() {
        let read = |text: &str| Dialect::Packets.read(text);
        let message = r#"{"packet_action":"message","channel":"chat","source":"OUT_CHAT","offset":3,"message":"17   "}"#;
        assert_eq!(read(message), Ok(Heard::Message(1, 17)));
        assert_eq!(read(r#"{"packet_action":"receipt","id":"5"}"#), Ok(Heard::Receipt(5)));
        let reply = r#"{"packet_action":"reply","id":"6","message":{"echo":1}}"#;
        assert_eq!(read(reply), Ok(Heard::Reply(6)));
        let welcome = r#"{"packet_action":"welcome","channels":["chat"]}"#;
        assert_eq!(read(welcome), Ok(Heard::Other));
        let error = r#"{"packet_action":"error","code":"dropped","text":"too slow"}"#;
        assert!(read(error).unwrap_err().contains("too slow"));
    }

    #[test]
    fn frames_are_read() {
        let message = "MESSAGE\nsubscription:2-0\ndestination:/exchange/amq.topic/x\n\n17   \0";
        assert_eq!(stomp().read(message), Ok(Heard::Message(2, 17)));
        assert_eq!(stomp().read("RECEIPT\nreceipt-id:5\n\n\0"), Ok(Heard::Receipt(5)));
        assert_eq!(stomp().read("CONNECTED\nversion:1.2\n\n\0"), Ok(Heard::Other));
        assert!(stomp().read("ERROR\nmessage:no\n\nwhy\0").unwrap_err().contains("why"));
    }

    #[test]
    fn packets_are_written() {
        for to in [To::Servers(0), To::Everyone(2), To::Client("ana")] {
            let packet = Dialect::Packets.publish(to, 9);
            let packet: serde_json::Value = serde_json::from_str(&packet).unwrap();
            assert_eq!(packet["message"].as_str().map(str::len), Some(BYTES), "{packet}");
        }
        let frame = stomp().publish(To::Everyone(1), 9);
        assert!(frame.starts_with("SEND\ndestination:/exchange/amq.topic/chat\n"), "{frame}");
    }
}
