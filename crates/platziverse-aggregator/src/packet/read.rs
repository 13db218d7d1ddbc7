//! From text to what a client wants, refused in words where it is none.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::channel::{Channel, ChannelSet, Channels};
use crate::packet::write::{Code, Reason};
use crate::packet::{CLIENT_BYTES_MAX, CLIENTS_MAX, ID_BYTES_MAX};

/// How long a request waits for its reply if it does not say.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
const DEADLINE_MIN: Duration = Duration::from_millis(10);
const DEADLINE_MAX: Duration = Duration::from_secs(300);

/// A packet of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What the answer is to name. Without one, only what goes wrong is answered.
    pub id: Option<String>,
    /// What is wanted.
    pub ask: Ask,
}

/// What a client wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To be sent what is distributed.
    Consume(Subscription),
    /// To be sent it no more.
    Unsubscribe(Subscription),
    /// To send something.
    Publish(Publish),
    /// To send something, and be told the answer.
    Request {
        /// The channel whose servers are asked.
        channel: Channel,
        /// The client that is asked instead of them, if one is.
        to: Option<String>,
        /// How long the answer may take.
        within: Duration,
        /// What is asked.
        message: String,
    },
    /// To answer what came with a `request_id`.
    Reply(Reply),
    /// To say what has arrived: the last offset of each source.
    Ack(BTreeMap<String, u64>),
    /// To hear that the aggregator is there.
    Ping,
    /// To say that the client is there.
    Pong,
}

/// Channels, or some of their sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The channels.
    pub channels: ChannelSet,
    /// Names of sources of these channels; all of them if there are none.
    pub sources: Vec<String>,
}

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The channels it is sent in.
    pub channels: ChannelSet,
    /// Who gets it.
    pub audience: Audience,
    /// What is sent: JSON.
    pub message: String,
}

/// Who gets what a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// One of the channel's servers.
    Servers,
    /// Every client of the channel.
    Everyone,
    /// These clients.
    Clients {
        /// Their ids.
        clients: Vec<String>,
        /// Whether the sender is told which of them there are.
        is_direct: bool,
    },
}

/// An answer to another's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The channel that it came in.
    pub channel: Channel,
    /// The client that asked; a server if there is none.
    pub to: Option<String>,
    /// The request's id.
    pub request: String,
    /// The answer: JSON.
    pub message: String,
}

/// A packet as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<'a> {
    packet_action: &'a str,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    channel: BTreeMap<String, bool>,
    #[serde(default)]
    distribution: Distribution,
    #[serde(default)]
    publish_target: Option<String>,
    #[serde(default)]
    consume_target: Vec<String>,
    #[serde(default, borrow)]
    message: Option<&'a RawValue>,
    #[serde(default)]
    deadline_ms: Option<u64>,
    #[serde(default)]
    reply_to: Option<ReplyTo>,
    #[serde(default)]
    offsets: BTreeMap<String, u64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Distribution {
    broadcast: bool,
    multicast: Vec<String>,
    direct: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyTo {
    #[serde(default)]
    client: Option<String>,
    request_id: String,
}

/// Reads a packet. What is wrong names the packet's id, if that could be read.
pub fn read(text: &str, channels: &Channels) -> Result<Order, (Option<String>, Reason)> {
    let written: Written<'_> = serde_json::from_str(text).map_err(|error| {
        let detail = format!("the packet is not understood: {error}");
        (id_of(text), Reason::new(Code::InvalidPacket, detail))
    })?;
    let id = written.id.clone();
    match understood(written, channels) {
        Ok(ask) => Ok(Order { id, ask }),
        Err(reason) => Err((id.filter(|id| id.len() <= ID_BYTES_MAX), reason)),
    }
}

/// The id of a packet that is wrong elsewhere.
fn id_of(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let named: Option<Named> = serde_json::from_str(text).ok();
    named.map(|named| named.id).filter(|id| id.len() <= ID_BYTES_MAX)
}

fn understood(written: Written<'_>, channels: &Channels) -> Result<Ask, Reason> {
    if written.id.as_ref().is_some_and(|id| id.is_empty() || id.len() > ID_BYTES_MAX) {
        return Err(invalid(format!("an id has 1 to {ID_BYTES_MAX} bytes")));
    }
    Ok(match written.packet_action {
        "consume" => Ask::Consume(subscription(written, channels)?),
        "unsubscribe" => Ask::Unsubscribe(subscription(written, channels)?),
        "publish" => Ask::Publish(publish(written, channels)?),
        "request" => request(written, channels)?,
        "reply" => Ask::Reply(reply(written, channels)?),
        "ack" if written.offsets.is_empty() => {
            return Err(invalid("ack needs offsets: the last one of each source"));
        }
        "ack" => Ask::Ack(written.offsets),
        "ping" => Ask::Ping,
        "pong" => Ask::Pong,
        other => {
            let detail = format!(
                "there is no packet_action {other:?}: it is consume, unsubscribe, publish, request, \
                 reply, ack, ping or pong"
            );
            return Err(Reason::new(Code::InvalidPacket, detail));
        }
    })
}

fn invalid(detail: impl Into<String>) -> Reason {
    Reason::new(Code::InvalidPacket, detail)
}

/// The channels that are set to true, at least one.
fn chosen(written: &Written<'_>, channels: &Channels) -> Result<ChannelSet, Reason> {
    let mut set = ChannelSet::default();
    for (name, is_chosen) in &written.channel {
        let channel = channels.find(name).ok_or_else(|| {
            let detail = format!("there is no channel {name:?}: there are {channels}");
            Reason::new(Code::UnknownChannel, detail)
        })?;
        if *is_chosen {
            set.insert(channel);
        }
    }
    if set.is_empty() {
        let names = format!("there are {channels}");
        return Err(invalid(format!("set a channel to true, as in {{\"chat\": true}}: {names}")));
    }
    Ok(set)
}

/// The one channel that is set to true.
fn only(written: &Written<'_>, channels: &Channels) -> Result<Channel, Reason> {
    let set = chosen(written, channels)?;
    let mut chosen = set.iter();
    match (chosen.next(), chosen.next()) {
        (Some(channel), None) => Ok(channel),
        _ => Err(invalid(format!("{} is for one channel", written.packet_action))),
    }
}

fn message(written: &Written<'_>) -> Result<String, Reason> {
    let message = written.message.ok_or_else(|| invalid("the message is missing"))?;
    Ok(message.get().to_owned())
}

fn subscription(written: Written<'_>, channels: &Channels) -> Result<Subscription, Reason> {
    let chosen = chosen(&written, channels)?;
    for name in &written.consume_target {
        let of_chosen = channels.of_source(name).filter(|channel| chosen.contains(*channel));
        if of_chosen.is_none() {
            let there: Vec<_> = chosen.iter().map(|channel| channels.source(channel)).collect();
            let detail = format!(
                "the chosen channels have no consume_target {name:?}: they have {}",
                there.join(", ")
            );
            return Err(Reason::new(Code::UnknownTarget, detail));
        }
    }
    Ok(Subscription { channels: chosen, sources: written.consume_target })
}

fn publish(written: Written<'_>, channels: &Channels) -> Result<Publish, Reason> {
    let (channels, message) = (chosen(&written, channels)?, message(&written)?);
    let audience = audience(written.distribution, written.publish_target.as_deref())?;
    Ok(Publish { channels, audience, message })
}

/// Who gets it: servers, unless it is said to be for clients.
fn audience(distribution: Distribution, target: Option<&str>) -> Result<Audience, Reason> {
    let Distribution { broadcast, multicast, direct } = distribution;
    let ways = [broadcast, !multicast.is_empty(), !direct.is_empty()];
    let is_for_clients = ways.contains(&true);
    match target {
        Some("INBOUND") if is_for_clients => {
            return Err(invalid("what goes to INBOUND is for servers, and has no distribution"));
        }
        Some("OUTBOUND") if !is_for_clients => {
            return Err(invalid("what goes to OUTBOUND needs a distribution"));
        }
        None | Some("INBOUND" | "OUTBOUND") => {}
        Some(other) => {
            let detail = format!("there is no publish_target {other:?}: it is INBOUND or OUTBOUND");
            return Err(Reason::new(Code::UnknownTarget, detail));
        }
    }
    if ways.into_iter().filter(|way| *way).count() > 1 {
        return Err(invalid("a distribution is one of broadcast, multicast and direct"));
    }
    if broadcast {
        return Ok(Audience::Everyone);
    }
    if !is_for_clients {
        return Ok(Audience::Servers);
    }
    let is_direct = multicast.is_empty();
    let mut clients = if is_direct { direct } else { multicast };
    clients.sort_unstable();
    clients.dedup();
    if clients.len() > CLIENTS_MAX {
        return Err(invalid(format!("at most {CLIENTS_MAX} clients can be named")));
    }
    clients.iter().try_for_each(|client| check_client(client))?;
    Ok(Audience::Clients { clients, is_direct })
}

/// Whether there can be a client of that id: its letters mean nothing in a routing key.
pub(crate) fn check_client(id: &str) -> Result<(), Reason> {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'@' | b':');
    if (1..=CLIENT_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain) {
        return Ok(());
    }
    let detail = format!(
        "there can be no client {id:?}: an id has 1 to {CLIENT_BYTES_MAX} letters, digits, `-`, `_`, \
         `@` and `:`"
    );
    Err(invalid(detail))
}

fn request(written: Written<'_>, channels: &Channels) -> Result<Ask, Reason> {
    if written.id.is_none() {
        return Err(invalid("a request needs an id, which its answer names"));
    }
    let within = written.deadline_ms.map_or(DEADLINE_DEFAULT, Duration::from_millis);
    if !(DEADLINE_MIN..=DEADLINE_MAX).contains(&within) {
        let [least, most] = [DEADLINE_MIN, DEADLINE_MAX].map(|bound| bound.as_millis());
        return Err(invalid(format!("deadline_ms must be from {least} to {most}")));
    }
    let (channel, message) = (only(&written, channels)?, message(&written)?);
    let to = match audience(written.distribution, written.publish_target.as_deref())? {
        Audience::Servers => None,
        Audience::Clients { clients, is_direct: true } if clients.len() == 1 => {
            clients.into_iter().next()
        }
        _ => return Err(invalid("a request is for servers, or for one client, by direct")),
    };
    Ok(Ask::Request { channel, to, within, message })
}

fn reply(written: Written<'_>, channels: &Channels) -> Result<Reply, Reason> {
    let (channel, message) = (only(&written, channels)?, message(&written)?);
    let ReplyTo { client, request_id } = written.reply_to.ok_or_else(|| {
        invalid("a reply needs reply_to: {\"client\": …, \"request_id\": …} of the message")
    })?;
    client.iter().try_for_each(|client| check_client(client))?;
    if request_id.is_empty() || request_id.len() > ID_BYTES_MAX {
        return Err(invalid(format!("a request_id has 1 to {ID_BYTES_MAX} bytes")));
    }
    Ok(Reply { channel, to: client, request: request_id, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channels() -> Channels {
        Channels::new(&["voice", "chat", "tickets"].map(str::to_owned))
    }

    fn ask(text: &str) -> Ask {
        read(text, &channels()).unwrap_or_else(|(_, reason)| panic!("{text}: {reason:?}")).ask
    }

    fn refused(text: &str) -> (Code, String) {
        let (_, reason) = read(text, &channels()).unwrap_err();
        (reason.code, reason.text)
    }

    #[test]
    fn a_packet_with_everything() {
        let order = read(
            r#"{"packet_action": "publish", "id": "1",
                "channel": {"voice": false, "chat": true, "tickets": false},
                "distribution": {"broadcast": false, "multicast": [], "direct": ["bob"]},
                "publish_target": "OUTBOUND", "consume_target": [], "message": {"a": [1, 2]}}"#,
            &channels(),
        );
        let order = order.unwrap();
        assert_eq!(order.id.as_deref(), Some("1"));
        let Ask::Publish(publish) = order.ask else { panic!("{order:?}") };
        let clients = vec!["bob".to_owned()];
        assert_eq!(publish.audience, Audience::Clients { clients, is_direct: true });
        assert_eq!(publish.message, r#"{"a": [1, 2]}"#);
        assert_eq!(publish.channels.iter().collect::<Vec<_>>(), [channels().find("chat").unwrap()]);
    }

    #[test]
    fn who_gets_it() {
        let audience = |rest: &str| {
            let text = format!(
                r#"{{"packet_action":"publish","channel":{{"chat":true}},"message":1{rest}}}"#
            );
            match read(&text, &channels()).map(|order| order.ask) {
                Ok(Ask::Publish(publish)) => Ok(publish.audience),
                Ok(other) => panic!("{other:?}"),
                Err((_, reason)) => Err(reason.text),
            }
        };
        assert_eq!(audience(""), Ok(Audience::Servers));
        assert_eq!(audience(r#","publish_target":"INBOUND""#), Ok(Audience::Servers));
        assert_eq!(audience(r#","distribution":{"broadcast":true}"#), Ok(Audience::Everyone));
        let clients = ["a", "b"].map(str::to_owned).to_vec();
        assert_eq!(
            audience(r#","distribution":{"multicast":["b","a","b"]}"#),
            Ok(Audience::Clients { clients, is_direct: false })
        );
        for (wrong, why) in [
            (r#","distribution":{"broadcast":true,"direct":["a"]}"#, "one of"),
            (r#","publish_target":"OUTBOUND""#, "needs a distribution"),
            (r#","publish_target":"INBOUND","distribution":{"broadcast":true}"#, "for servers"),
            (r#","publish_target":"amq.topic""#, "INBOUND or OUTBOUND"),
            (r#","distribution":{"direct":["a.b"]}"#, "letters"),
            (r##","distribution":{"direct":["#"]}"##, "letters"),
        ] {
            let text = audience(wrong).unwrap_err();
            assert!(text.contains(why), "{wrong}: {text}");
        }
    }

    #[test]
    fn what_is_consumed() {
        let Ask::Consume(Subscription { channels: set, sources }) = ask(
            r#"{"packet_action":"consume","channel":{"chat":true,"voice":true},"consume_target":["OUT_CHAT"]}"#,
        ) else {
            panic!("no consume")
        };
        assert_eq!((set.iter().count(), sources), (2, vec!["OUT_CHAT".to_owned()]));
        let (code, text) = refused(
            r#"{"packet_action":"consume","channel":{"chat":true},"consume_target":["OUT_VOICE"]}"#,
        );
        assert_eq!(code, Code::UnknownTarget);
        assert!(text.contains("OUT_CHAT"), "{text}");
    }

    #[test]
    fn requests_have_an_id_and_a_deadline() {
        let request = |rest: &str| {
            format!(
                r#"{{"packet_action":"request","channel":{{"chat":true}},"message":"x"{rest}}}"#
            )
        };
        let Ask::Request { within, message, .. } = ask(&request(r#","id":"1","deadline_ms":250"#))
        else {
            panic!("no request")
        };
        assert_eq!((within, message.as_str()), (Duration::from_millis(250), "\"x\""));
        for (wrong, why) in [
            ("", "needs an id"),
            (r#","id":"1","deadline_ms":1"#, "from 10 to"),
            (r#","id":"1","publish_target":"OUTBOUND""#, "needs a distribution"),
            (r#","id":"1","distribution":{"broadcast":true}"#, "one client"),
            (r#","id":"1","distribution":{"direct":["a","b"]}"#, "one client"),
            (r#","id":"""#, "1 to 100 bytes"),
        ] {
            let (code, text) = refused(&request(wrong));
            assert_eq!(code, Code::InvalidPacket);
            assert!(text.contains(why), "{wrong}: {text}");
        }
    }

    #[test]
    fn what_is_wrong_names_the_packet() {
        for (text, id, code) in [
            ("nonsense", None, Code::InvalidPacket),
            (r#"{"packet_action":"jump","id":"4"}"#, Some("4"), Code::InvalidPacket),
            (r#"{"packet_action":"ack","id":"5"}"#, Some("5"), Code::InvalidPacket),
            (r#"{"packet_action":"ack","id":"5","extra":1}"#, Some("5"), Code::InvalidPacket),
            (
                r#"{"packet_action":"consume","id":"6","channel":{"news":true}}"#,
                Some("6"),
                Code::UnknownChannel,
            ),
            (
                r#"{"packet_action":"consume","id":"7","channel":{"chat":false}}"#,
                Some("7"),
                Code::InvalidPacket,
            ),
            (r#"{"packet_action":"publish","channel":{"chat":true}}"#, None, Code::InvalidPacket),
        ] {
            let (named, reason) = read(text, &channels()).unwrap_err();
            assert_eq!((named.as_deref(), reason.code), (id, code), "{text}: {reason:?}");
        }
    }
}
