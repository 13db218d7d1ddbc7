//! Who a client is.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use platziverse_config::{AggregatorConfig, Anonymous};
use platziverse_protocol::time::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::packet::check_client;

/// Seconds by which the clocks of whoever signs and of this machine may differ.
const LEEWAY: i64 = 60;

/// Why a client is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// It shows nothing, and has to.
    #[error(
        "show a token: the header Authorization: Bearer TOKEN, or the subprotocol bearer.TOKEN beside \
         platziverse.v1"
    )]
    NoToken,
    /// Nobody has that token, or its time is over.
    #[error("the token is not known here, or its time is over")]
    UnknownToken,
    /// It calls itself what no client can be called.
    #[error("{0}")]
    WrongId(String),
}

/// The settings name a key that is none.
#[derive(Debug, thiserror::Error)]
#[error("aggregator.jwt_public_key is no Ed25519 public key in PEM")]
pub struct WrongKey(#[source] jsonwebtoken::errors::Error);

/// Knows clients by what they show.
#[derive(Clone)]
pub struct Authenticator {
    anonymous: Anonymous,
    /// By the hashes of tokens, so that comparing tells nothing about them.
    tokens: HashMap<[u8; 32], String>,
    keys: Vec<(DecodingKey, Validation)>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds since 1970, of which there may be parts (RFC 7519, 2: NumericDate).
    exp: f64,
}

/// A client that is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub client: String,
    /// Until when, if its token says so.
    pub until: Option<Timestamp>,
}

impl Authenticator {
    /// One for these settings.
    pub fn new(settings: &AggregatorConfig) -> Result<Self, WrongKey> {
        let tokens = settings.tokens.iter();
        let tokens = tokens.map(|row| (hash(row.token.expose()), row.client.clone())).collect();
        let mut keys = Vec::new();
        if let Some(secret) = &settings.jwt_secret {
            let key = DecodingKey::from_secret(secret.expose().as_bytes());
            keys.push((key, validation(Algorithm::HS256)));
        }
        if let Some(pem) = &settings.jwt_public_key {
            let key = DecodingKey::from_ed_pem(pem.as_bytes()).map_err(WrongKey)?;
            keys.push((key, validation(Algorithm::EdDSA)));
        }
        Ok(Self { anonymous: settings.anonymous, tokens, keys })
    }

    /// Who a client is that shows this token, or none, and would like to be called `wish`.
    pub fn client(
        &self,
        token: Option<&str>,
        wish: Option<&str>,
        from: IpAddr,
    ) -> Result<Known, Stranger> {
        let Some(token) = token else { return self.anonymous(wish, from) };
        if let Some(client) = self.tokens.get(&hash(token)) {
            return Ok(Known { client: client.clone(), until: None });
        }
        let claims = self.keys.iter().find_map(|(key, validation)| {
            decode::<Claims>(token, key, validation).ok().map(|token| token.claims)
        });
        let Claims { sub, exp } = claims.ok_or(Stranger::UnknownToken)?;
        // Seconds are compared: the last one counts whole.
        let end = rounded(exp).saturating_add(LEEWAY + 1);
        let until = Timestamp::from_millis(end.saturating_mul(1_000)).ok();
        Ok(Known { until, ..named(sub)? })
    }

    fn anonymous(&self, wish: Option<&str>, from: IpAddr) -> Result<Known, Stranger> {
        let is_let_in = match self.anonymous {
            Anonymous::Always => true,
            Anonymous::Loopback => from.to_canonical().is_loopback(),
            Anonymous::Never => false,
        };
        if !is_let_in {
            return Err(Stranger::NoToken);
        }
        match wish {
            Some(wish) => named(wish.to_owned()),
            None => named(Uuid::now_v7().to_string()),
        }
    }
}

fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = LEEWAY.unsigned_abs();
    validation.set_required_spec_claims(&["exp", "sub"]);
    validation.validate_nbf = true;
    // Who signs says for whom by the key.
    validation.validate_aud = false;
    validation
}

/// As whoever looks at the token rounds it. What no number of seconds can be is cut.
#[expect(clippy::cast_possible_truncation, reason = "it is cut")]
fn rounded(seconds: f64) -> i64 {
    seconds.round() as i64
}

fn named(client: String) -> Result<Known, Stranger> {
    match check_client(&client) {
        Ok(()) => Ok(Known { client, until: None }),
        Err(reason) => Err(Stranger::WrongId(reason.text)),
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("anonymous", &self.anonymous).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use platziverse_config::{ClientToken, Secret};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "a secret of at least 32 characters";
    const LATER: i64 = 4_000_000_000;

    fn authenticator(change: impl FnOnce(&mut AggregatorConfig)) -> Authenticator {
        let mut settings = AggregatorConfig {
            jwt_secret: Some(Secret::new(SECRET)),
            tokens: vec![ClientToken {
                client: "ana".to_owned(),
                token: Secret::new("0123456789abcdef"),
            }],
            ..AggregatorConfig::default()
        };
        change(&mut settings);
        Authenticator::new(&settings).unwrap()
    }

    fn known(client: &str, until: Option<i64>) -> Result<Known, Stranger> {
        let until = until.map(|until| Timestamp::from_millis(until * 1_000).unwrap());
        Ok(Known { client: client.to_owned(), until })
    }

    fn signed(claims: serde_json::Value, secret: &str) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
    }

    #[test]
    fn clients_are_who_their_tokens_say() {
        let authenticator = authenticator(|_| {});
        let far = IpAddr::from([192, 0, 2, 1]);
        let client = |token: &str| authenticator.client(Some(token), Some("eve"), far);
        assert_eq!(client("0123456789abcdef"), known("ana", None));
        assert_eq!(
            client(&signed(json!({"sub": "bob", "exp": LATER}), SECRET)),
            known("bob", Some(LATER + LEEWAY + 1))
        );
        let in_part = json!({"sub": "bob", "exp": 4_000_000_000.4});
        assert_eq!(client(&signed(in_part, SECRET)), known("bob", Some(LATER + LEEWAY + 1)));
        for wrong in [
            "0123456789abcdeg".to_owned(),
            signed(json!({"sub": "bob", "exp": LATER}), "another secret of 32 characters!!"),
            signed(json!({"sub": "bob", "exp": 1}), SECRET),
            signed(json!({"sub": "bob"}), SECRET),
            signed(json!({"exp": LATER}), SECRET),
        ] {
            assert_eq!(client(&wrong), Err(Stranger::UnknownToken), "{wrong}");
        }
        let odd = client(&signed(json!({"sub": "a.b", "exp": LATER}), SECRET));
        assert!(matches!(odd, Err(Stranger::WrongId(_))), "{odd:?}");
    }

    #[test]
    fn who_shows_nothing_is_let_in_from_here() {
        let [far, here] = [[192, 0, 2, 1], [127, 0, 0, 1]].map(IpAddr::from);
        let loopback = authenticator(|_| {});
        assert_eq!(loopback.client(None, None, far), Err(Stranger::NoToken));
        assert_eq!(loopback.client(None, Some("eve"), here), known("eve", None));
        assert!(loopback.client(None, Some("a b"), here).is_err());
        let always = authenticator(|settings| settings.anonymous = Anonymous::Always);
        let [one, other] = [(), ()].map(|()| always.client(None, None, far).unwrap());
        assert_ne!(one.client, other.client);
        let never = authenticator(|settings| settings.anonymous = Anonymous::Never);
        assert_eq!(never.client(None, None, here), Err(Stranger::NoToken));
    }
}
