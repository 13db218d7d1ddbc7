//! `/v1/topics` and `/v1/queues`: what there is, and who is subscribed.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::core::{Caller, ObjectOptions, Outcome, Page, Which};
use crate::http::input::{Asked, Json, Named, Span};
use crate::http::view::{CreatedView, ListView, ShownView};
use crate::http::{Problem, Shelf};

/// What to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewObject {
    /// 1 to 128 bytes of UTF-8 without control characters, and without white space at either end.
    #[schema(example = "weather", min_length = 1, max_length = 128)]
    name: String,
    /// The most messages, in a queue or in each subscriber's part of a topic. When it is full, a
    /// publish is refused.
    #[schema(minimum = 1)]
    max_length: Option<u64>,
    /// How long a message waits; after that it becomes a dead letter. A number of milliseconds, or
    /// text such as `1h`.
    #[schema(value_type = Option<serde_json::Value>, example = "1h")]
    message_ttl: Option<Span>,
    /// How often a message may come back; once more, and it becomes a dead letter.
    #[schema(minimum = 1)]
    delivery_limit: Option<u32>,
}

/// Create an object
///
/// Its creator is subscribed to it. Asked again in the same words, it answers 200.
#[utoipa::path(post, path = "/", operation_id = "create", request_body = NewObject,
    responses(
        (status = 201, description = "It is there", body = CreatedView),
        (status = 200, description = "It was there already, created by the same user with the same options", body = CreatedView),
    ))]
pub(super) async fn create(
    State(shelf): State<Shelf>,
    caller: Caller,
    Json(new): Json<NewObject>,
) -> Result<(StatusCode, axum::Json<CreatedView>), Problem> {
    let options = ObjectOptions {
        max_length: new.max_length,
        message_ttl: new.message_ttl.map(|Span(ttl)| ttl),
        delivery_limit: new.delivery_limit,
    };
    let status = match shelf.core.create(&caller, shelf.kind, &new.name, options).await? {
        Outcome::New => StatusCode::CREATED,
        Outcome::Exists => StatusCode::OK,
    };
    Ok((status, axum::Json(CreatedView { name: new.name })))
}

/// Which objects of one's own.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Of {
    /// Those that one created.
    #[default]
    Created,
    /// Those that one is subscribed to.
    Subscribed,
}

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct Listing {
    /// Those that one `created` (the default), or is `subscribed` to.
    #[param(inline)]
    which: Of,
    /// Only names that come after this one.
    after: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: u32,
}

impl Default for Listing {
    fn default() -> Self {
        Self { which: Of::Created, after: None, limit: 50 }
    }
}

/// List objects
///
/// One's own, or those one is subscribed to, by name, with how many messages wait.
#[utoipa::path(get, path = "/", operation_id = "list", params(Listing),
    responses((status = 200, description = "A part of the list", body = ListView)))]
pub(super) async fn list(
    State(shelf): State<Shelf>,
    caller: Caller,
    Asked(Listing { which, after, limit }): Asked<Listing>,
) -> Result<axum::Json<ListView>, Problem> {
    let which = match which {
        Of::Created => Which::Created,
        Of::Subscribed => Which::Subscribed,
    };
    let page = Page { which, after, limit, with_counts: true };
    Ok(axum::Json(shelf.core.list(&caller, shelf.kind, &page).await?.into()))
}

/// Show an object
#[utoipa::path(get, path = "/{name}", operation_id = "show", params(("name" = String, Path)),
    responses((status = 200, description = "What it is", body = ShownView)))]
pub(super) async fn show(
    State(shelf): State<Shelf>,
    Named(name): Named,
    caller: Caller,
) -> Result<axum::Json<ShownView>, Problem> {
    Ok(axum::Json(shelf.core.show(&caller, shelf.kind, &name).await?.into()))
}

/// Delete an object
///
/// With every message in it. Only its creator may.
#[utoipa::path(delete, path = "/{name}", operation_id = "delete", params(("name" = String, Path)),
    responses((status = 204, description = "It is gone")))]
pub(super) async fn delete(
    State(shelf): State<Shelf>,
    Named(name): Named,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    shelf.core.delete(&caller, shelf.kind, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Subscribe to an object
///
/// To a topic, for a copy of each message that others publish from now on; to a queue, to share what
/// is in it with its other subscribers.
#[utoipa::path(post, path = "/{name}/subscription", operation_id = "subscribe",
    params(("name" = String, Path)),
    responses((status = 204, description = "The user is subscribed")))]
pub(super) async fn subscribe(
    State(shelf): State<Shelf>,
    Named(name): Named,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    shelf.core.subscribe(&caller, shelf.kind, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// End one's subscription to an object
///
/// To a topic, with what waits there for oneself.
#[utoipa::path(delete, path = "/{name}/subscription", operation_id = "unsubscribe",
    params(("name" = String, Path)),
    responses((status = 204, description = "The user is not subscribed any more")))]
pub(super) async fn unsubscribe(
    State(shelf): State<Shelf>,
    Named(name): Named,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    shelf.core.unsubscribe(&caller, shelf.kind, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
