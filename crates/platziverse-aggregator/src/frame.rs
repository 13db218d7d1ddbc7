//! From what RabbitMQ brings to what clients are written.

use std::sync::Arc;

use platziverse_broker::aggregator::{Kind, Outbound, Target as Sent};
use serde_json::value::{RawValue, to_raw_value};

use crate::channel::{Channel, Channels};
use crate::log::{Entry, Target};
use crate::outbox::{Frame, Outcome};
use crate::packet::{Code, MessageFrame, Reason, reply};

/// The entry of a message, rendered; none if it is neither JSON nor text, or for nobody.
pub fn entry(
    channels: &Channels,
    channel: Channel,
    offset: u64,
    outbound: Outbound,
) -> Option<Entry> {
    let target = match outbound.target {
        Sent::Everyone => Target::Everyone,
        Sent::Clients(clients) => Target::Clients(clients),
        Sent::Marker(_) => return None,
    };
    let (outcome, asked) = match outbound.kind {
        Kind::Reply if target != Target::Everyone => (outbound.request, None),
        Kind::Request => (None, outbound.request),
        Kind::Reply | Kind::Publish => (None, None),
    };
    let from = outbound.from.as_deref();
    let text = match (&outcome, outbound.error) {
        (Some(id), Some(error)) => Reason::new(Code::Failed, error).packet(Some(id)),
        (Some(id), None) => reply(id, from, &json(&outbound.body)?),
        (None, _) => MessageFrame {
            channel: channels.name(channel),
            source: channels.source(channel),
            offset,
            from,
            request_id: asked.as_deref(),
            message: &json(&outbound.body)?,
        }
        .packet(),
    };
    let reply = outcome.map(|id| Outcome { request: id.into(), from: from.map(Into::into) });
    let frame = Frame { offset, channel, reply, text: text.into() };
    Some(Entry { target, frame: Arc::new(frame) })
}

/// A body as JSON: what is text and not JSON is a string.
fn json(body: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(body).ok()?;
    match serde_json::from_str(text) {
        Ok(value) => Some(value),
        Err(_) => to_raw_value(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn outbound(kind: Kind, request: Option<&str>, error: Option<&str>, body: &[u8]) -> Outbound {
        Outbound {
            target: Sent::Clients(vec!["ana".to_owned()]),
            kind,
            from: Some("bob".to_owned()),
            request: request.map(str::to_owned),
            error: error.map(str::to_owned),
            body: Bytes::copy_from_slice(body),
            timestamp: None,
        }
    }

    fn shown(outbound: Outbound) -> Option<(Option<String>, serde_json::Value)> {
        let channels = Channels::new(&["voice", "chat"].map(str::to_owned));
        let entry = entry(&channels, channels.find("chat").unwrap(), 7, outbound)?;
        let reply = entry.frame.reply.as_ref().map(|reply| reply.request.to_string());
        Some((reply, serde_json::from_str(entry.frame.text.as_str()).unwrap()))
    }

    #[test]
    fn messages_requests_and_replies() {
        let (reply, packet) = shown(outbound(Kind::Publish, None, None, b"{\"a\": 1}")).unwrap();
        assert_eq!(reply, None);
        let wanted = serde_json::json!({"packet_action": "message", "channel": "chat",
            "source": "OUT_CHAT", "offset": 7, "from": "bob", "message": {"a": 1}});
        assert_eq!(packet, wanted);
        let (reply, packet) = shown(outbound(Kind::Request, Some("5"), None, b"1")).unwrap();
        assert_eq!((reply, &packet["request_id"]), (None, &serde_json::json!("5")));
        let (reply, packet) = shown(outbound(Kind::Reply, Some("5"), None, b"1")).unwrap();
        assert_eq!((reply.as_deref(), &packet["packet_action"]), (Some("5"), &"reply".into()));
        let (reply, packet) = shown(outbound(Kind::Reply, Some("5"), Some("no"), b"")).unwrap();
        assert_eq!((reply.as_deref(), &packet["code"]), (Some("5"), &"failed".into()));
        assert_eq!((&packet["text"], &packet["id"]), (&"no".into(), &"5".into()));
    }

    #[test]
    fn what_is_no_json_is_text_or_nothing() {
        let (_, packet) = shown(outbound(Kind::Publish, None, None, b"hello \"you\"")).unwrap();
        assert_eq!(packet["message"], "hello \"you\"");
        assert_eq!(shown(outbound(Kind::Publish, None, None, &[0xff, 0xfe])), None);
        let marker = Outbound {
            target: Sent::Marker(uuid::Uuid::nil()),
            ..outbound(Kind::Publish, None, None, b"1")
        };
        assert_eq!(shown(marker), None);
    }
}
