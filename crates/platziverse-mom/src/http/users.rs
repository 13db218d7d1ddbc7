//! `/v1/users`.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use platziverse_service::listener::Peer;

use crate::core::{Caller, KeyForm};
use crate::http::view::{KeyView, NewUserView, UserView};
use crate::http::{Api, Problem};

/// Become a user
///
/// Answers the key that all other requests need. It is kept as a hash only, so it cannot be shown
/// again.
#[utoipa::path(post, path = "/", tag = "users", operation_id = "create_user", security(()),
    responses((status = 201, description = "The user and the key", body = NewUserView)))]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
) -> Result<(StatusCode, Json<NewUserView>), Problem> {
    let user = api.core.create_user(KeyForm::Current, Some(peer.0.ip())).await?;
    Ok((StatusCode::CREATED, Json(user.into())))
}

/// Whose key it is
#[utoipa::path(get, path = "/me", tag = "users", operation_id = "show_user",
    responses((status = 200, description = "The user", body = UserView)))]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<UserView>, Problem> {
    Ok(Json(UserView { id: api.core.user(&caller).await? }))
}

/// Delete oneself
///
/// All subscriptions end, with what is in them. Topics and queues of one's own must be deleted before.
#[utoipa::path(delete, path = "/me", tag = "users", operation_id = "delete_user",
    responses((status = 204, description = "The key is unknown from now on")))]
pub(super) async fn delete(State(api): State<Api>, caller: Caller) -> Result<StatusCode, Problem> {
    api.core.delete_user(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Get another key
///
/// The old key is unknown from now on.
#[utoipa::path(post, path = "/me/key", tag = "users", operation_id = "rotate_key",
    responses((status = 200, description = "The new key", body = KeyView)))]
pub(super) async fn rotate_key(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<KeyView>, Problem> {
    Ok(Json(KeyView { key: api.core.rotate_key(&caller).await? }))
}
