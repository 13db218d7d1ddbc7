//! Who a client is, and which topics are open to it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier};
use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};
use platziverse_config::{Anonymous, GatewayConfig};
use platziverse_protocol::topic::TopicFilter;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// How many passwords are checked at a time; each check takes some 20 MB and 20 ms by design.
const CHECKS_AT_A_TIME: usize = 2;

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
    /// The gateway is going down.
    Unavailable,
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
    checks: Arc<Semaphore>,
    /// What was right before, as keyed hashes: a check of argon2 is slow by design, and a fleet
    /// that reconnects must not wait for one each.
    proven: Mutex<HashMap<String, [u8; 32]>>,
    key: [u8; 32],
    /// Checked for users that do not exist, so that the time taken does not tell.
    decoy: Option<String>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("users", &self.users.len()).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// The users and permissions of the settings.
    pub fn new(settings: &GatewayConfig) -> Self {
        let permissions = |publish: &Vec<TopicFilter>, subscribe: &Vec<TopicFilter>| Permissions {
            publish: publish.as_slice().into(),
            subscribe: subscribe.as_slice().into(),
        };
        let user = |user: &platziverse_config::User| {
            let hash = user.password_hash.expose().to_owned();
            let permissions = permissions(&user.publish, &user.subscribe);
            (user.username.clone(), User { hash, permissions })
        };
        let users: HashMap<_, _> = settings.users.iter().map(user).collect();
        let decoy = users.values().next().map(|user| user.hash.clone());
        let mut key = [0; 32];
        key[..16].copy_from_slice(Uuid::new_v4().as_bytes());
        key[16..].copy_from_slice(Uuid::new_v4().as_bytes());
        Self {
            users,
            anonymous: settings.anonymous,
            anonymous_permissions: permissions(
                &settings.anonymous_publish,
                &settings.anonymous_subscribe,
            ),
            checks: Arc::new(Semaphore::new(CHECKS_AT_A_TIME)),
            proven: Mutex::default(),
            key,
            decoy,
        }
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
        let given = password.unwrap_or_default();
        if let Some(user) = user.filter(|_| self.is_proven(username, given)) {
            return Ok(user.permissions.clone());
        }
        let Some(hash) = user.map(|user| &user.hash).or(self.decoy.as_ref()) else {
            return Err(Refusal::BadCredentials);
        };
        let (hash, password) = (hash.clone(), given.to_vec());
        let Ok(permit) = Arc::clone(&self.checks).acquire_owned().await else {
            return Err(Refusal::BadCredentials);
        };
        // Another client of the same user may have come first.
        if let Some(user) = user.filter(|_| self.is_proven(username, given)) {
            return Ok(user.permissions.clone());
        }
        let check = tokio::task::spawn_blocking(move || {
            // A check that has begun ends, also when nobody waits for it any more.
            let _permit = permit;
            verify(&hash, &password)
        });
        match (check.await, user) {
            (Ok(true), Some(user)) => {
                let proof = self.mac(given).finalize().into_bytes().into();
                self.proven().insert(username.to_owned(), proof);
                Ok(user.permissions.clone())
            }
            _ => Err(Refusal::BadCredentials),
        }
    }

    fn is_proven(&self, username: &str, password: &[u8]) -> bool {
        let Some(proof) = self.proven().get(username).copied() else { return false };
        // Compares in constant time.
        self.mac(password).verify_slice(&proof).is_ok()
    }

    fn mac(&self, password: &[u8]) -> Blake2sMac256 {
        let mut mac = <Blake2sMac256 as KeyInit>::new(&self.key.into());
        mac.update(password);
        mac
    }

    fn proven(&self) -> MutexGuard<'_, HashMap<String, [u8; 32]>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use argon2::password_hash::{PasswordHasher, SaltString};
    use platziverse_config::{Secret, User};

    use super::*;

    const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
    const ELSEWHERE: [u8; 4] = [192, 0, 2, 1];

    fn authenticator(anonymous: Anonymous) -> Authenticator {
        let salt = SaltString::from_b64("c29tZXNhbHQ").unwrap();
        let hash = Argon2::default().hash_password(b"right", &salt).unwrap().to_string();
        let user = User {
            username: "agent".to_owned(),
            password_hash: Secret::new(hash),
            publish: vec![TopicFilter::parse("agent/message").unwrap()],
            subscribe: vec![TopicFilter::parse("agent/+").unwrap()],
        };
        let settings = GatewayConfig { users: vec![user], anonymous, ..GatewayConfig::default() };
        Authenticator::new(&settings)
    }

    #[tokio::test]
    async fn passwords() {
        let auth = authenticator(Anonymous::Never);
        let check = async |user: &str, password: Option<&[u8]>, want: Result<(), Refusal>| {
            let got = auth.check(Some(user), password, ELSEWHERE.into()).await;
            assert_eq!(got.map(|_| ()), want, "{user} {password:?}");
        };
        check("agent", Some(b"wrong"), Err(Refusal::BadCredentials)).await;
        check("agent", Some(b"right"), Ok(())).await;
        // From what was proven before.
        check("agent", Some(b"right"), Ok(())).await;
        check("agent", Some(b"wrong"), Err(Refusal::BadCredentials)).await;
        check("agent", None, Err(Refusal::BadCredentials)).await;
        check("nobody", Some(b"right"), Err(Refusal::BadCredentials)).await;
    }

    #[tokio::test]
    async fn a_check_that_nobody_waits_for_keeps_its_place() {
        let auth = authenticator(Anonymous::Never);
        let check = auth.check(Some("agent"), Some(b"right"), ELSEWHERE.into());
        assert!(tokio::time::timeout(Duration::ZERO, check).await.is_err(), "argon2 is slower");
        assert_eq!(auth.checks.available_permits(), CHECKS_AT_A_TIME - 1);
        drop(auth.checks.acquire_many(CHECKS_AT_A_TIME as u32).await.unwrap());
    }

    #[tokio::test]
    async fn anonymous_clients() {
        let check = async |anonymous: Anonymous, peer: [u8; 4], want: bool| {
            let got = authenticator(anonymous).check(None, None, peer.into()).await;
            assert_eq!(got.is_ok(), want, "{anonymous:?} from {peer:?}");
        };
        check(Anonymous::Loopback, LOOPBACK, true).await;
        check(Anonymous::Loopback, ELSEWHERE, false).await;
        check(Anonymous::Always, ELSEWHERE, true).await;
        check(Anonymous::Never, LOOPBACK, false).await;
    }

    #[tokio::test]
    async fn permissions_are_by_topic() {
        let auth = authenticator(Anonymous::Never);
        let got = auth.check(Some("agent"), Some(b"right"), LOOPBACK.into()).await.unwrap();
        assert!(got.may_publish("agent/message") && !got.may_publish("other"));
        assert!(got.may_subscribe(&TopicFilter::parse("agent/connected").unwrap()));
        assert!(!got.may_subscribe(&TopicFilter::parse("#").unwrap()));
    }
}
