//! Resume tokens: a session's state, signed, carried by its client to whichever aggregator it comes
//! back to.

use std::collections::BTreeMap;
use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What is needed to go on with a session.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Whose it is.
    #[serde(rename = "c")]
    pub client: String,
    /// Its id.
    #[serde(rename = "s")]
    pub id: Uuid,
    /// From each source, the offset of what the client has not said to have.
    #[serde(rename = "o")]
    pub offsets: BTreeMap<String, u64>,
    /// The sources that it consumes.
    #[serde(rename = "n")]
    pub consumes: Vec<String>,
}

/// Bytes of a token.
const TOKEN_BYTES_MAX: usize = 8_192;

/// Signs resume tokens, and knows them again. All replicas have the same secret.
#[derive(Clone)]
pub struct Signer {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
}

impl Signer {
    /// One with this secret.
    pub fn new(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Whether a session can go on is said by what RabbitMQ still keeps.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        Self {
            signing: EncodingKey::from_secret(secret),
            checking: DecodingKey::from_secret(secret),
            validation,
        }
    }

    /// The token of a session; nothing if it cannot be signed.
    pub fn token(&self, session: &Session) -> Option<String> {
        encode(&Header::new(Algorithm::HS256), session, &self.signing).ok()
    }

    /// The session of a token, if it is one of ours.
    pub fn session(&self, token: &str) -> Option<Session> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        decode(token, &self.checking, &self.validation).ok().map(|token| token.claims)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        let offsets = [("OUT_CHAT".to_owned(), 7)].into();
        let consumes = vec!["OUT_CHAT".to_owned()];
        Session { client: "ana".to_owned(), id: Uuid::from_u128(1), offsets, consumes }
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let signer = Signer::new(b"one");
        let token = signer.token(&session()).unwrap();
        assert_eq!(signer.session(&token), Some(session()));
        assert_eq!(Signer::new(b"other").session(&token), None);
    }

    #[test]
    fn what_was_changed_is_no_token() {
        let signer = Signer::new(b"one");
        let [token, forged] = ["ana", "eve"].map(|client| {
            signer.token(&Session { client: client.to_owned(), ..session() }).unwrap()
        });
        let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
        let (ours, theirs) = (parts(&token), parts(&forged));
        let mixed = format!("{}.{}.{}", ours[0], theirs[1], ours[2]);
        let unsigned = "eyJhbGciOiJub25lIn0.e30.";
        for wrong in [&mixed, "", ".", "a.b.c", unsigned, &token[1..], &"x".repeat(9_000)] {
            assert_eq!(signer.session(wrong), None, "{wrong}");
        }
    }
}
