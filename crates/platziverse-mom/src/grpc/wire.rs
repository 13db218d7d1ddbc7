//! Between what is on the wire and what the core knows.

use std::time::Duration;

use platziverse_protocol::time::Timestamp;
use platziverse_rpc::mom::{
    self, AckMode as WireAckMode, ConsumeRequest, Kind, Message, Options, PublishRequest,
    PublishResponse,
};
use uuid::Uuid;

use crate::core::{
    AckMode, Listing, MomMessage, NewMessage, Object, ObjectKind, ObjectOptions, Published,
    Refusal, Which,
};

/// Which kind is meant: every request about an object says so.
pub(super) fn kind(kind: i32) -> Result<ObjectKind, Refusal> {
    match Kind::try_from(kind) {
        Ok(Kind::Topic) => Ok(ObjectKind::Topic),
        Ok(Kind::Queue) => Ok(ObjectKind::Queue),
        Ok(Kind::Unspecified) | Err(_) => {
            Err(Refusal::invalid("kind must be KIND_TOPIC or KIND_QUEUE"))
        }
    }
}

/// Which objects to list.
pub(super) fn which(which: i32) -> Result<Which, Refusal> {
    match mom::Which::try_from(which) {
        Ok(mom::Which::Unspecified | mom::Which::Created) => Ok(Which::Created),
        Ok(mom::Which::Subscribed) => Ok(Which::Subscribed),
        Err(_) => Err(Refusal::invalid("which must be WHICH_CREATED or WHICH_SUBSCRIBED")),
    }
}

/// A duration, which `what` is.
pub(super) fn duration(what: &str, duration: prost_types::Duration) -> Result<Duration, Refusal> {
    let wrong = |_| Refusal::invalid(format!("{what} must not be negative"));
    Duration::try_from(duration).map_err(wrong)
}

/// How to create an object.
pub(super) fn options(options: Option<Options>) -> Result<ObjectOptions, Refusal> {
    let Options { max_length, message_ttl, delivery_limit } = options.unwrap_or_default();
    let message_ttl = message_ttl.map(|ttl| duration("message_ttl", ttl)).transpose()?;
    Ok(ObjectOptions { max_length, message_ttl, delivery_limit })
}

/// How to consume one message: how long to wait for it, and how it is acknowledged.
pub(super) fn consuming(
    request: &ConsumeRequest,
    lease_default: Duration,
) -> Result<(Duration, AckMode), Refusal> {
    let wait = request.wait.map(|wait| duration("wait", wait)).transpose()?.unwrap_or_default();
    let lease = request.lease.map(|lease| duration("lease", lease)).transpose()?;
    let mode = match (WireAckMode::try_from(request.ack), lease) {
        (Ok(WireAckMode::Manual), lease) => {
            AckMode::Manual { lease: lease.unwrap_or(lease_default) }
        }
        (Ok(WireAckMode::Unspecified | WireAckMode::Auto), None) => AckMode::Auto,
        (Ok(WireAckMode::Unspecified | WireAckMode::Auto), Some(_)) => {
            return Err(Refusal::invalid("a lease needs ACK_MODE_MANUAL"));
        }
        (Err(_), _) => {
            return Err(Refusal::invalid("ack must be ACK_MODE_AUTO or ACK_MODE_MANUAL"));
        }
    };
    Ok((wait, mode))
}

/// What to publish.
pub(super) fn new_message(request: PublishRequest) -> NewMessage {
    let some = |text: String| (!text.is_empty()).then_some(text);
    NewMessage {
        content_type: some(request.content_type),
        headers: request.headers.into_iter().collect(),
        body: request.body,
        idempotency_key: some(request.idempotency_key),
    }
}

/// That a message was published, or why not.
pub(super) fn published(result: Result<Published, Refusal>, sequence: u64) -> PublishResponse {
    match result {
        Ok(Published { id, receivers }) => {
            PublishResponse { id: id.to_string(), receivers, sequence, problem: None }
        }
        Err(Refusal { code, detail, .. }) => {
            let problem = Some(mom::Problem { code: code.as_str().to_owned(), detail });
            PublishResponse { sequence, problem, ..PublishResponse::default() }
        }
    }
}

/// A message as it is delivered.
pub(super) fn message(message: MomMessage) -> Message {
    let MomMessage { id, content_type, headers, body, publisher, timestamp, redelivered } = message;
    let text = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
    Message {
        id: text(id),
        content_type,
        headers: headers.into_iter().collect(),
        body,
        publisher: text(publisher),
        timestamp: timestamp.map(self::timestamp),
        redelivered,
    }
}

/// A topic or queue.
pub(super) fn object(Listing { object, messages }: Listing) -> mom::Object {
    let Object { kind, name, creator, options, created_at, .. } = object;
    let ObjectOptions { max_length, message_ttl, delivery_limit } = options;
    let kind = match kind {
        ObjectKind::Topic => Kind::Topic,
        ObjectKind::Queue => Kind::Queue,
    };
    // Longer than thirty days it cannot be.
    let message_ttl = message_ttl.and_then(|ttl| prost_types::Duration::try_from(ttl).ok());
    mom::Object {
        kind: kind.into(),
        name,
        creator: creator.to_string(),
        options: Some(Options { max_length, message_ttl, delivery_limit }),
        created_at: Some(timestamp(created_at)),
        messages,
    }
}

fn timestamp(timestamp: Timestamp) -> prost_types::Timestamp {
    let millis = timestamp.as_millis();
    // Less than a thousand, times a million.
    let nanos = i32::try_from(millis.rem_euclid(1_000) * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds: millis.div_euclid(1_000), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Code;

    const LEASE: Duration = Duration::from_secs(30);

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    #[test]
    fn every_request_says_what_it_is_about() {
        assert_eq!(kind(1), Ok(ObjectKind::Topic));
        assert_eq!(kind(2), Ok(ObjectKind::Queue));
        for wrong in [0, 3, -1] {
            assert_eq!(kind(wrong).unwrap_err().code, Code::InvalidRequest);
        }
        assert_eq!(
            [0, 1, 2].map(which),
            [Which::Created, Which::Created, Which::Subscribed].map(Ok)
        );
        assert!(which(3).is_err());
    }

    #[test]
    fn how_to_consume() {
        let asked = |ack, wait, lease| {
            let request = ConsumeRequest { ack, wait, lease, ..ConsumeRequest::default() };
            consuming(&request, LEASE)
        };
        assert_eq!(asked(0, None, None), Ok((Duration::ZERO, AckMode::Auto)));
        assert_eq!(asked(1, seconds(2), None), Ok((Duration::from_secs(2), AckMode::Auto)));
        assert_eq!(asked(2, None, None), Ok((Duration::ZERO, AckMode::Manual { lease: LEASE })));
        let lease = Duration::from_secs(5);
        assert_eq!(asked(2, None, seconds(5)), Ok((Duration::ZERO, AckMode::Manual { lease })));
        for wrong in [
            asked(1, None, seconds(5)),
            asked(3, None, None),
            asked(1, seconds(-1), None),
            asked(2, None, seconds(-1)),
        ] {
            assert_eq!(wrong.unwrap_err().code, Code::InvalidRequest);
        }
    }

    #[test]
    fn what_is_empty_is_not_said() {
        let message = new_message(PublishRequest::default());
        assert_eq!(message, NewMessage::default());
        let request = PublishRequest {
            content_type: "a/b".to_owned(),
            idempotency_key: "k".to_owned(),
            ..PublishRequest::default()
        };
        let message = new_message(request);
        assert_eq!(message.content_type.as_deref(), Some("a/b"));
        assert_eq!(message.idempotency_key.as_deref(), Some("k"));
    }

    #[test]
    fn answers_name_their_requests() {
        let done = published(Ok(Published { id: Uuid::nil(), receivers: 2 }), 7);
        assert_eq!((done.sequence, done.receivers, done.id), (7, 2, Uuid::nil().to_string()));
        let refused = published(Err(Refusal::new(Code::QueueFull, "full")), 8);
        let problem = refused.problem.unwrap();
        assert_eq!((refused.sequence, problem.code.as_str()), (8, "queue_full"));
    }

    #[test]
    fn times_before_the_epoch_are_times() {
        let at = |millis| timestamp(Timestamp::from_millis(millis).unwrap());
        assert_eq!((at(1_500).seconds, at(1_500).nanos), (1, 500_000_000));
        assert_eq!((at(-1).seconds, at(-1).nanos), (-1, 999_000_000));
    }
}
