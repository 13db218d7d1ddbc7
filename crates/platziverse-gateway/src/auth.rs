//! Who a client is, and which topics are open to it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier};
use platziverse_config::{Anonymous, GatewayConfig};
use platziverse_protocol::topic::{TopicError, TopicFilter};
use tokio::sync::Semaphore;

/// How many passwords are checked at a time; each check takes some 20 MB and 20 ms by design.
const CHECKS_AT_A_TIME: usize = 2;

/// A setting about users that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A permission that is no topic filter.
    #[error("{key}: {filter:?} is no topic filter")]
    Filter {
        /// Where.
        key: String,
        /// What was found.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: TopicError,
    },
    /// A password hash that cannot be read. It is not shown.
    #[error("gateway.users: the password_hash of {username:?} is no argon2 hash")]
    Hash {
        /// Whose.
        username: String,
    },
}

/// The topics that are open to a client.
#[derive(Clone, Debug)]
pub struct Permissions {
    publish: Arc<[TopicFilter]>,
    subscribe: Arc<[TopicFilter]>,
}

impl Permissions {
    /// Whether the client may publish to `topic`.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.publish.iter().any(|filter| filter.matches(topic))
    }

    /// Whether everything that `filter` asks for is open to the client.
    pub fn may_subscribe(&self, filter: &TopicFilter) -> bool {
        self.subscribe.iter().any(|allowed| allowed.covers(filter))
    }
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Unknown user or wrong password.
    BadCredentials,
    /// No credentials where some are needed.
    NotAuthorized,
}

struct User {
    hash: String,
    permissions: Permissions,
}

/// Checks clients against the settings.
pub struct Authenticator {
    users: HashMap<String, User>,
    anonymous: Anonymous,
    anonymous_permissions: Permissions,
    checks: Semaphore,
    /// Checked for users that do not exist, so that the time taken does not tell.
    decoy: Option<String>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Reads the users and permissions of the settings.
    pub fn new(settings: &GatewayConfig) -> Result<Self, AuthError> {
        let mut users = HashMap::new();
        for user in &settings.users {
            let hash = user.password_hash.expose().to_owned();
            if PasswordHash::new(&hash).is_err() {
                return Err(AuthError::Hash { username: user.username.clone() });
            }
            let key = |list: &str| format!("gateway.users[{}].{list}", user.username);
            let permissions = Permissions {
                publish: filters(&key("publish"), &user.publish)?,
                subscribe: filters(&key("subscribe"), &user.subscribe)?,
            };
            users.insert(user.username.clone(), User { hash, permissions });
        }
        let decoy = users.values().next().map(|user| user.hash.clone());
        let (publish, subscribe) = (&settings.anonymous_publish, &settings.anonymous_subscribe);
        let anonymous_permissions = Permissions {
            publish: filters("gateway.anonymous_publish", publish)?,
            subscribe: filters("gateway.anonymous_subscribe", subscribe)?,
        };
        let (anonymous, checks) = (settings.anonymous, Semaphore::new(CHECKS_AT_A_TIME));
        Ok(Self { users, anonymous, anonymous_permissions, checks, decoy })
    }

    /// Decides about a client at `peer`. Passwords are checked away from the I/O threads.
    pub async fn check(
        &self,
        username: Option<&str>,
        password: Option<&[u8]>,
        peer: IpAddr,
    ) -> Result<Permissions, Refusal> {
        let Some(username) = username else {
            return self.anonymous(peer);
        };
        let user = self.users.get(username);
        let Some(hash) = user.map(|user| &user.hash).or(self.decoy.as_ref()) else {
            return Err(Refusal::BadCredentials);
        };
        let (hash, password) = (hash.clone(), password.unwrap_or_default().to_vec());
        let Ok(_permit) = self.checks.acquire().await else {
            return Err(Refusal::BadCredentials);
        };
        let check = tokio::task::spawn_blocking(move || verify(&hash, &password));
        match (check.await, user) {
            (Ok(true), Some(user)) => Ok(user.permissions.clone()),
            _ => Err(Refusal::BadCredentials),
        }
    }

    fn anonymous(&self, peer: IpAddr) -> Result<Permissions, Refusal> {
        let open = match self.anonymous {
            Anonymous::Always => true,
            Anonymous::Loopback => peer.to_canonical().is_loopback(),
            Anonymous::Never => false,
        };
        if open { Ok(self.anonymous_permissions.clone()) } else { Err(Refusal::NotAuthorized) }
    }
}

fn verify(hash: &str, password: &[u8]) -> bool {
    let parsed = PasswordHash::new(hash);
    parsed.is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

fn filters(key: &str, texts: &[String]) -> Result<Arc<[TopicFilter]>, AuthError> {
    let parse = |text: &String| {
        TopicFilter::parse(text).map_err(|source| AuthError::Filter {
            key: key.to_owned(),
            filter: text.clone(),
            source,
        })
    };
    texts.iter().map(parse).collect()
}
