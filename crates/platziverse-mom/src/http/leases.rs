//! `/v1/leases`: settling what was consumed with `ack=manual`.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::core::{Caller, Settle};
use crate::http::input::{Asked, Named, Span};
use crate::http::{Api, Problem};

/// The message is done with
#[utoipa::path(post, path = "/{lease}/ack", tag = "leases", operation_id = "ack",
    params(("lease" = String, Path, description = "What `consume` has answered")),
    responses((status = 204, description = "It is gone from the queue")))]
pub(super) async fn ack(
    State(api): State<Api>,
    Named(lease): Named,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    api.core.settle(&caller, &lease, Settle::Ack).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The message goes back
///
/// It is delivered again, at most as often as the topic's or queue's `delivery_limit` says.
#[utoipa::path(post, path = "/{lease}/nack", tag = "leases", operation_id = "nack",
    params(("lease" = String, Path, description = "What `consume` has answered")),
    responses((status = 204, description = "It is back in the queue")))]
pub(super) async fn nack(
    State(api): State<Api>,
    Named(lease): Named,
    caller: Caller,
) -> Result<StatusCode, Problem> {
    api.core.settle(&caller, &lease, Settle::Nack).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How much longer.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Longer {
    /// From now on: `1s` to `25m`. Without it, the server's default (`mom.lease_default`).
    #[param(value_type = Option<String>, example = "30s")]
    lease: Option<Span>,
}

/// Keep the message longer
///
/// At most 25 minutes in all.
#[utoipa::path(post, path = "/{lease}/extend", tag = "leases", operation_id = "extend",
    params(("lease" = String, Path, description = "What `consume` has answered"), Longer),
    responses((status = 204, description = "The lease ends so much later")))]
pub(super) async fn extend(
    State(api): State<Api>,
    Named(lease): Named,
    caller: Caller,
    Asked(Longer { lease: longer }): Asked<Longer>,
) -> Result<StatusCode, Problem> {
    let longer = longer.map_or(api.core.settings().lease_default, |Span(longer)| longer);
    api.core.settle(&caller, &lease, Settle::Extend(longer)).await?;
    Ok(StatusCode::NO_CONTENT)
}
