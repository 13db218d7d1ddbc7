//! The catalogue of topics and queues: users, objects, subscriptions, and publishes that are known by
//! an idempotency key. Messages are not here: RabbitMQ has them.
//!
//! A change of an object or a subscription is begun here, then made in RabbitMQ, then finished here.
//! Each function is one statement or one transaction, so that any number of servers may call them at
//! once. Whoever repeats a request finishes what was begun; so does whoever
//! [claims](claim_unfinished) what has been unfinished for long.
//!
//! Who begins a change, or claims one, may act on RabbitMQ for [`CLAIM`], and for no longer. Several
//! may do so at once, since all they do is the same. What is deleted stays `deleting` until nobody
//! else may act any more: a later object of that name would suffer from somebody who is late. Who
//! finishes a change gives its claim back, but not the claim to create what is to be deleted by now:
//! RabbitMQ may have heard of the deletion first, so everything is deleted once more after the claim.

mod changes;
mod lookup;
mod object;
mod publishes;
mod reading;
mod subscriptions;
mod unfinished;
mod users;

use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

pub use self::changes::{
    Created, Deletion, begin_create, begin_delete, finish_create, finish_delete,
};
pub use self::lookup::{Found, LOOKUP_TIMEOUT, Lookup};
pub use self::object::{Object, ObjectKind, ObjectOptions, Stage, UnknownKind};
pub use self::publishes::{forget_publishes, published, remember_publish};
pub use self::reading::{Which, list, show};
pub use self::subscriptions::{
    Subscribed, Unsubscription, begin_subscribe, begin_unsubscribe, finish_subscribe,
    finish_unsubscribe,
};
pub use self::unfinished::{Unfinished, claim_unfinished};
pub use self::users::{UserDeletion, create_user, delete_user, rotate_key};

/// How long whoever begins or claims a change may act on RabbitMQ, and finish it here, counted from
/// before it asked. After that it must leave the change to others: the name may be another object's.
pub const CLAIM: Duration = Duration::from_secs(10);

/// A claim that begins now.
fn claim() -> String {
    format!("(now() + interval '{} s')", CLAIM.as_secs())
}

/// What the column `claims` becomes when one is added; those that are over go.
fn claimed() -> String {
    format!("{ALIVE} || {}", claim())
}

/// Those claims of the column `claims` that are not over.
const ALIVE: &str = "array(SELECT one FROM unnest(claims) AS one WHERE one > now())";

/// What the column `claims` becomes when one is given back. Whose it is does not matter: the first
/// goes. Those that are over count: whoever had one may have acted on RabbitMQ after the caller did.
const GIVEN_BACK: &str = "claims[2:]";

/// A parameter of a statement.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// The primary key of an object, as the first two parameters.
fn key<'a>(kind: &'a ObjectKind, name: &'a &str) -> [Parameter<'a>; 2] {
    [(kind, Type::TEXT), (name, Type::TEXT)]
}

/// The primary key of a subscription, as the first three parameters.
fn subscription_key<'a>(
    kind: &'a ObjectKind,
    name: &'a &str,
    user: &'a Uuid,
) -> [Parameter<'a>; 3] {
    [(kind, Type::TEXT), (name, Type::TEXT), (user, Type::UUID)]
}
