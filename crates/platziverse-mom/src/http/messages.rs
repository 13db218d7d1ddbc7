//! `/v1/topics/{name}/messages`, `/v1/queues/{name}/consume` and what goes with them.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::core::{AckMode, Caller, MomMessage, NewMessage, Refusal, Taken};
use crate::http::body;
use crate::http::input::{Asked, Named, Span};
use crate::http::view::{MessageView, MessagesView, PublishedView, PurgedView};
use crate::http::{Problem, Shelf};

/// What a header of HTTP begins with that is a header of the message.
const OWN: &str = "x-header-";
/// A larger body is read only of who has a key.
pub(crate) const UNCHECKED_BYTES_MAX: u64 = 65_536;

/// Publish to an object
///
/// The body is the message, as it is. Headers `X-Header-<name>` become headers of the message, `<name>`
/// in small letters. Answers when RabbitMQ has the message in every queue: then it is not lost. With
/// an `Idempotency-Key` that was used there within a day, it answers what it answered then. After an
/// error some subscribers may have the message: sent again with the same key it has the same id.
#[utoipa::path(post, path = "/{name}/messages", operation_id = "publish",
    params(
        ("name" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 bytes that name the publish"),
        ("X-Header-<name>" = Option<String>, Header, description = "A header of the message"),
    ),
    request_body(content = Vec<u8>, content_type = "*/*", description = "The message, of any type"),
    responses((status = 201, description = "The message is stored", body = PublishedView)))]
pub(super) async fn publish(
    State(shelf): State<Shelf>,
    Named(name): Named,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, axum::Json<PublishedView>), Problem> {
    let (parts, body) = request.into_parts();
    let max = shelf.core.settings().body_bytes_max;
    let is_small = body::announced(&body).is_some_and(|length| length <= UNCHECKED_BYTES_MAX);
    if !is_small && let Err(refusal) = Box::pin(shelf.core.check_key(&caller)).await {
        return Err(refusal.into());
    }
    let held = body::read(body, max, &shelf.bodies).await?;
    let message = NewMessage {
        content_type: text_of(&parts.headers, &CONTENT_TYPE)?.filter(|kind| !kind.is_empty()),
        headers: own_headers(&parts.headers)?,
        body: held.bytes.clone(),
        idempotency_key: text_of(&parts.headers, &HeaderName::from_static("idempotency-key"))?,
    };
    let published = shelf.core.publish(&caller, shelf.kind, &name, message).await?;
    drop(held);
    Ok((StatusCode::CREATED, axum::Json(published.into())))
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(|value| text(name.as_str(), value)).transpose()?;
    match values.next() {
        Some(_) => Err(Refusal::invalid(format!("the header {name} is there twice"))),
        None => Ok(first),
    }
}

fn text(name: &str, value: &HeaderValue) -> Result<String, Refusal> {
    match str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(Refusal::invalid(format!("the header {name} is not UTF-8"))),
    }
}

fn own_headers(headers: &HeaderMap) -> Result<Vec<(String, String)>, Refusal> {
    let own =
        headers.iter().filter_map(|(name, value)| Some((name.as_str().strip_prefix(OWN)?, value)));
    own.map(|(name, value)| Ok((name.to_owned(), text(name, value)?))).collect()
}

/// How a message is acknowledged.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Acknowledge {
    /// With the answer.
    #[default]
    Auto,
    /// By the consumer.
    Manual,
}

/// How a message is shown.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    /// As it is.
    #[default]
    Raw,
    /// In JSON.
    Json,
}

/// How to consume.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Consuming {
    /// How long to wait for a message if there is none, such as `30s`; at most a minute, unless the
    /// server says otherwise (`mom.wait_max`).
    #[param(value_type = Option<String>, example = "30s")]
    wait: Option<Span>,
    /// `auto` (the default): the message is gone from the queue with the answer. `manual`: it comes
    /// back unless it is acknowledged while it is lent.
    #[param(inline)]
    ack: Acknowledge,
    /// With `ack=manual`, how long the message is lent, `1s` to `25m`. Without it, the server's
    /// default (`mom.lease_default`).
    #[param(value_type = Option<String>, example = "30s")]
    lease: Option<Span>,
    /// `raw` (the default): the message as it is. `json`: an object, with the body in base64.
    #[param(inline)]
    format: Format,
}

/// Take the next message
///
/// The answer's body is the message, with its content type, and its own headers as
/// `X-Header-<name>`.
#[utoipa::path(post, path = "/{name}/consume", operation_id = "consume",
    params(("name" = String, Path), Consuming),
    responses(
        (status = 200, description = "The message; with `format=json`, the object Message",
            content((Vec<u8> = "*/*"), (MessageView = "application/json")),
            headers(
                ("Message-Id" = String, description = "Its id"),
                ("Message-Timestamp" = String, description = "When it was published (RFC 3339)"),
                ("Message-Publisher" = String, description = "The user who published it"),
                ("Message-Redelivered" = bool, description = "Whether it may have been delivered before"),
                ("X-Header-<name>" = String, description = "A header of the message"),
                ("Lease" = String, description = "With `ack=manual`, what settles it: see leases"),
            )),
        (status = 204, description = "There was none, all the time"),
    ))]
pub(super) async fn consume(
    State(shelf): State<Shelf>,
    Named(name): Named,
    caller: Caller,
    Asked(consuming): Asked<Consuming>,
) -> Result<Response, Problem> {
    let Consuming { wait, ack, lease, format } = consuming;
    let wait = wait.map_or(Duration::ZERO, |Span(wait)| wait);
    let mode = match (ack, lease) {
        (Acknowledge::Auto, None) => AckMode::Auto,
        (Acknowledge::Auto, Some(_)) => {
            return Err(Refusal::invalid("a lease needs ack=manual").into());
        }
        (Acknowledge::Manual, lease) => AckMode::Manual {
            lease: lease.map_or(shelf.core.settings().lease_default, |Span(lease)| lease),
        },
    };
    let taken = shelf.core.consume(&caller, shelf.kind, &name, wait, mode).await?;
    Ok(match (taken, format) {
        (None, _) => StatusCode::NO_CONTENT.into_response(),
        (Some(taken), Format::Json) => axum::Json(MessageView::from(taken)).into_response(),
        (Some(taken), Format::Raw) => raw(taken),
    })
}

fn raw(Taken { message, lease }: Taken) -> Response {
    let MomMessage { id, content_type, headers, body, publisher, timestamp, redelivered } = message;
    let mut response = Response::new(Body::from(body));
    let mut set = |name: &str, value: Option<String>| {
        let name = HeaderName::from_bytes(name.as_bytes());
        // What others publish over AMQP may not fit into a header: `format=json` shows it.
        let value = value.and_then(|value| HeaderValue::try_from(value).ok());
        if let (Ok(name), Some(value)) = (name, value) {
            response.headers_mut().insert(name, value);
        }
    };
    for (name, value) in headers {
        set(&format!("{OWN}{name}"), Some(value));
    }
    set(CONTENT_TYPE.as_str(), Some(content_type));
    set("message-id", id.map(|id| id.to_string()));
    set("message-timestamp", timestamp.map(|timestamp| timestamp.to_string()));
    set("message-publisher", publisher.map(|publisher| publisher.to_string()));
    set("message-redelivered", Some(redelivered.to_string()));
    set("lease", lease);
    response
}

/// How far to look.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Peeking {
    /// At most so many messages.
    #[param(minimum = 1, maximum = 100, default = 10)]
    limit: u16,
}

impl Default for Peeking {
    fn default() -> Self {
        Self { limit: 10 }
    }
}

/// Look at the first messages
///
/// They stay in the queue. Who consumes at the same time may get them a moment later, and in another
/// order. On RabbitMQ before 4.3 a look counts as a delivery for the `delivery_limit`.
#[utoipa::path(get, path = "/{name}/messages", operation_id = "peek",
    params(("name" = String, Path), Peeking),
    responses((status = 200, description = "The messages", body = MessagesView)))]
pub(super) async fn peek(
    State(shelf): State<Shelf>,
    Named(name): Named,
    caller: Caller,
    Asked(Peeking { limit }): Asked<Peeking>,
) -> Result<axum::Json<MessagesView>, Problem> {
    let messages = shelf.core.peek(&caller, shelf.kind, &name, limit).await?;
    Ok(axum::Json(MessagesView { items: messages.into_iter().map(MessageView::from).collect() }))
}

/// Delete what waits
///
/// In a queue, which only its creator may do; or in one's own part of a topic. What is lent to a
/// consumer stays.
#[utoipa::path(delete, path = "/{name}/messages", operation_id = "purge",
    params(("name" = String, Path)),
    responses((status = 200, description = "How many messages were deleted", body = PurgedView)))]
pub(super) async fn purge(
    State(shelf): State<Shelf>,
    Named(name): Named,
    caller: Caller,
) -> Result<axum::Json<PurgedView>, Problem> {
    let purged = shelf.core.purge(&caller, shelf.kind, &name).await?;
    Ok(axum::Json(PurgedView { purged }))
}

#[cfg(test)]
mod tests {
    use platziverse_protocol::time::Timestamp;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn headers_of_the_message_are_told_from_others() {
        let mut headers = HeaderMap::new();
        headers.insert("x-header-trace", HeaderValue::from_static("1"));
        headers.insert("X-Header-A.b", HeaderValue::from_bytes("à".as_bytes()).unwrap());
        headers.insert("x-other", HeaderValue::from_static("2"));
        let mut own = own_headers(&headers).unwrap();
        own.sort();
        let wanted = [("a.b", "à"), ("trace", "1")];
        assert_eq!(own, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        headers.insert("x-header-bad", HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(own_headers(&headers).unwrap_err().detail.contains("bad"));
    }

    #[test]
    fn headers_that_contradict_each_other_are_refused() {
        let (name, mut headers) = (HeaderName::from_static("idempotency-key"), HeaderMap::new());
        assert_eq!(text_of(&headers, &name), Ok(None));
        headers.append(&name, HeaderValue::from_static("a"));
        assert_eq!(text_of(&headers, &name), Ok(Some("a".to_owned())));
        headers.append(&name, HeaderValue::from_static("b"));
        assert!(text_of(&headers, &name).unwrap_err().detail.contains("idempotency-key"));
    }

    #[test]
    fn a_message_is_shown_as_it_is() {
        let message = MomMessage {
            id: Some(Uuid::nil()),
            content_type: "text/plain".to_owned(),
            headers: vec![
                ("trace".to_owned(), "1".to_owned()),
                ("broken".to_owned(), "a\nb".to_owned()),
            ],
            body: "hello".into(),
            publisher: None,
            timestamp: Some(Timestamp::EPOCH),
            redelivered: true,
        };
        let response = raw(Taken { message, lease: Some("L".to_owned()) });
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("content-type"), Some("text/plain"));
        assert_eq!(header("message-id"), Some("00000000-0000-0000-0000-000000000000"));
        assert_eq!(header("message-timestamp"), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(header("message-redelivered"), Some("true"));
        assert_eq!(header("x-header-trace"), Some("1"));
        assert_eq!(header("lease"), Some("L"));
        assert_eq!((header("message-publisher"), header("x-header-broken")), (None, None));
    }
}
