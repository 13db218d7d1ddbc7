//! The document that describes `/v1` (OpenAPI 3.1).
//!
//! Paths, parameters and answers come from the handlers; what can go wrong is added here.

use std::collections::BTreeMap;

use platziverse_service::chain;
use serde_json::{Map, Value, json};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};

use crate::core::{Code, ObjectKind};

const ABOUT: &str = "\
Topics and queues for applications. A topic copies each message to every subscriber but its publisher; \
a queue gives each message to one of its subscribers. A publish is answered when the message is stored.\n\n\
Durations are text with a unit, such as `30s` or `500ms`. Names in paths are percent-encoded. Errors are \
problem details (RFC 9457) with a stable `code`; those that pass say when to come back, in `Retry-After`.";

/// The scheme of the header Authorization.
const KEY: &str = "key";

/// What the document begins with.
pub(super) fn beginning() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Platziverse: topics and queues")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .build();
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new().security_scheme(KEY, scheme).build();
    let tags = [
        ("users", "Keys"),
        ("topics", "A copy of each message for every subscriber but its publisher"),
        ("queues", "Each message for one of the subscribers"),
        ("leases", "Messages that were consumed with `ack=manual`"),
    ];
    let tags =
        tags.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build());
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([SecurityRequirement::new(KEY, [""; 0])]))
        .tags(Some(tags))
        .build()
}

/// Names the operations on objects after what the objects are.
pub(super) fn name_operations(document: &mut OpenApi, kind: ObjectKind) {
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.delete];
        for operation in operations.into_iter().flatten() {
            name_operation(operation, kind);
        }
    }
}

fn name_operation(operation: &mut Operation, kind: ObjectKind) {
    let say = |text: String| {
        text.replace("an object", &format!("a {kind}")).replace("objects", &format!("{kind}s"))
    };
    operation.operation_id = operation.operation_id.take().map(|id| format!("{id}_{kind}"));
    operation.summary = operation.summary.take().map(say);
    operation.tags = Some(vec![format!("{kind}s")]);
}

/// The whole document, with what can go wrong.
pub(super) fn complete(document: OpenApi) -> String {
    let mut document = serde_json::to_value(document).unwrap_or_else(|error| {
        tracing::error!("the description of /v1 cannot be written: {}", chain(&error));
        Value::Null
    });
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for item in paths.values_mut().filter_map(Value::as_object_mut) {
            for operation in item.values_mut().filter_map(Value::as_object_mut) {
                show_bytes(operation);
                add_refusals(operation);
            }
        }
        paths.insert("/v1/openapi.json".to_owned(), description_of_itself());
    }
    if let Some(schemas) = document.pointer_mut("/components/schemas") {
        schemas["Problem"] = problem();
    }
    document.to_string()
}

fn description_of_itself() -> Value {
    json!({"get": {
        "tags": ["description"], "operationId": "describe", "security": [{}],
        "summary": "This document",
        "responses": {"200": {
            "description": "OpenAPI 3.1",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }},
    }})
}

/// A refusal as it is shown.
fn problem() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let meanings: Vec<String> =
        Code::ALL.iter().map(|code| format!("`{code}`: {}", code.title())).collect();
    json!({
        "type": "object",
        "description": "Why a request is not done (RFC 9457)",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "example": "urn:platziverse:problem:unknown_key"},
            "title": {"type": "string", "description": "What is wrong, in one line"},
            "status": {"type": "integer", "description": "The HTTP status"},
            "detail": {"type": "string", "description": "What was wrong, and what to change"},
            "code": {
                "type": "string", "enum": codes,
                "description": format!("What is wrong, for programs. {}", meanings.join("; ")),
            },
        },
    })
}

/// What is of any type has no schema: it is bytes, and no array of numbers.
fn show_bytes(operation: &mut Map<String, Value>) {
    let answers = operation.get_mut("responses").and_then(Value::as_object_mut);
    let answers = answers.into_iter().flat_map(Map::values_mut);
    let any = answers.filter_map(|answer| answer.pointer_mut("/content/*~1*"));
    any.for_each(|any| *any = json!({}));
    let body = operation.get_mut("requestBody");
    if let Some(any) = body.and_then(|body| body.pointer_mut("/content/*~1*")) {
        *any = json!({});
    }
}

fn add_refusals(operation: &mut Map<String, Value>) {
    let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default();
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in refusals(id) {
        by_status.entry(code.status()).or_default().push(code);
    }
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else {
        return;
    };
    for (status, codes) in by_status {
        let lines: Vec<String> =
            codes.iter().map(|code| format!("`{code}`: {}", code.title())).collect();
        let content = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
        let mut response = json!({"description": lines.join("; "), "content": content});
        if codes.iter().any(|code| code.is_passing()) {
            response["headers"]["Retry-After"] = json!({
                "description": "How many seconds to wait before the same request is worth sending again",
                "schema": {"type": "integer", "minimum": 1},
            });
        }
        responses.insert(status.to_string(), response);
    }
}

/// What can become of an operation instead of what was asked for.
fn refusals(id: &str) -> Vec<Code> {
    use Code::{
        AlreadyExists, AlreadySubscribed, BeingDeleted, HasObjects, InvalidName, InvalidRequest,
        LeaseGone, MethodNotAllowed, NotCreator, NotFound, NotSubscribed, QueueFull,
        RegistrationClosed, RequestTimeout, TooLarge, TooManyRequests, TooManySubscribers,
        Unavailable, UnknownKey, UnknownQueue, UnknownTopic,
    };
    let own: &[Code] = match id.trim_end_matches("_topic").trim_end_matches("_queue") {
        "create_user" => &[RegistrationClosed, TooManyRequests, Unavailable],
        "show_user" | "rotate_key" => &[UnknownKey],
        "delete_user" => &[UnknownKey, HasObjects],
        "ack" | "nack" | "extend" => &[UnknownKey, InvalidName, InvalidRequest, LeaseGone],
        "create" => &[
            UnknownKey,
            InvalidName,
            InvalidRequest,
            AlreadyExists,
            BeingDeleted,
            TooLarge,
            RequestTimeout,
        ],
        "list" => &[UnknownKey, InvalidName, InvalidRequest],
        "show" => &[UnknownKey, InvalidName],
        "delete" => &[UnknownKey, InvalidName, NotCreator],
        "subscribe" => {
            &[UnknownKey, InvalidName, AlreadySubscribed, TooManySubscribers, BeingDeleted]
        }
        "unsubscribe" => &[UnknownKey, InvalidName, NotSubscribed],
        "publish" => {
            &[UnknownKey, InvalidName, InvalidRequest, TooLarge, RequestTimeout, QueueFull]
        }
        "consume" | "peek" => &[UnknownKey, InvalidName, InvalidRequest, NotSubscribed],
        "purge" => &[UnknownKey, InvalidName, NotCreator, NotSubscribed],
        _ => &[NotFound, MethodNotAllowed],
    };
    let names_one =
        ["show", "delete", "subscribe", "unsubscribe", "publish", "consume", "peek", "purge"];
    let unknown = [("_topic", UnknownTopic), ("_queue", UnknownQueue)];
    let unknown = unknown
        .into_iter()
        .find(|(kind, _)| id.strip_suffix(kind).is_some_and(|id| names_one.contains(&id)));
    let mut all = own.to_vec();
    all.extend(unknown.map(|(_, code)| code));
    all.extend([TooManyRequests, Unavailable].into_iter().filter(|code| !own.contains(code)));
    all
}
