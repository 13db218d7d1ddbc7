//! `/v1`: the operations over HTTP, and the document that describes them.

pub(crate) mod body;
mod input;
mod leases;
mod leftover;
mod messages;
mod objects;
mod openapi;
mod page;
mod problem;
mod server;
mod users;
mod view;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::http::Method;
use axum::http::Uri;
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::core::{Code, Core, ObjectKind, Refusal};

pub use self::problem::Problem;
pub use self::server::serve;

pub(crate) use self::input::caller;
pub(crate) use self::messages::UNCHECKED_BYTES_MAX;
pub(crate) use self::server::farewell;

/// What every request is given.
#[derive(Clone)]
pub(crate) struct Api {
    core: Core,
    /// Bytes of bodies that may be read at a time.
    bodies: Arc<Semaphore>,
}

/// What a request about topics, or about queues, is given.
#[derive(Clone)]
pub(crate) struct Shelf {
    api: Api,
    kind: ObjectKind,
}

impl Deref for Shelf {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// Every path of `/v1`, with what describes them.
pub fn router(core: Core) -> Router {
    let api = Api { core, bodies: Arc::new(Semaphore::new(body::BYTES_MAX)) };
    let (router, document) = described(api).split_for_parts();
    router.merge(page::router(&openapi::complete(document)))
}

/// Answers at paths and methods that nothing has.
pub fn with_fallbacks(router: Router) -> Router {
    router.fallback(nothing_there).method_not_allowed_fallback(other_method)
}

fn described(api: Api) -> OpenApiRouter {
    let users = OpenApiRouter::new()
        .routes(routes!(users::create))
        .routes(routes!(users::show, users::delete))
        .routes(routes!(users::rotate_key))
        .with_state(api.clone());
    let leases = OpenApiRouter::new()
        .routes(routes!(leases::ack))
        .routes(routes!(leases::nack))
        .routes(routes!(leases::extend))
        .with_state(api.clone());
    let shelf = |kind| objects_and_messages(Shelf { api: api.clone(), kind });
    OpenApiRouter::with_openapi(openapi::beginning())
        .nest("/v1/users", users)
        .nest("/v1/topics", shelf(ObjectKind::Topic))
        .nest("/v1/queues", shelf(ObjectKind::Queue))
        .nest("/v1/leases", leases)
}

fn objects_and_messages(shelf: Shelf) -> OpenApiRouter {
    let kind = shelf.kind;
    let mut router = OpenApiRouter::new()
        .routes(routes!(objects::create, objects::list))
        .routes(routes!(objects::show, objects::delete))
        .routes(routes!(objects::subscribe, objects::unsubscribe))
        .routes(routes!(messages::publish, messages::peek, messages::purge))
        .routes(routes!(messages::consume));
    openapi::name_operations(router.get_openapi_mut(), kind);
    router.with_state(shelf)
}

async fn nothing_there(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; /v1/openapi.json lists the paths", uri.path());
    Refusal::new(Code::NotFound, detail).into()
}

async fn other_method(method: Method, uri: Uri) -> Problem {
    let detail =
        format!("{} does not take {method}; the header Allow says what it takes", uri.path());
    Refusal::new(Code::MethodNotAllowed, detail).into()
}
