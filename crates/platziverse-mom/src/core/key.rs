//! Keys: what a user shows to be known. Only their hashes are kept.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::core::refusal::Refusal;

/// How a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// `pk_` and 43 characters: 32 random bytes.
    Current,
    /// 10 of a to z and 0 to 9, as clients of the older system expect.
    Older,
}

const OLDER: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const OLDER_LENGTH: usize = 10;
/// The bytes below it stand for each letter equally often.
const OLDER_LIMIT: u8 = 252;

/// A new key of that form.
pub(crate) fn make(form: KeyForm) -> Result<String, Refusal> {
    match form {
        KeyForm::Current => Ok(format!("pk_{}", URL_SAFE_NO_PAD.encode(random()?))),
        KeyForm::Older => {
            let mut key = String::with_capacity(OLDER_LENGTH);
            while key.len() < OLDER_LENGTH {
                let even = random()?.into_iter().filter(|byte| *byte < OLDER_LIMIT);
                let letters = even.map(|byte| char::from(OLDER[usize::from(byte) % OLDER.len()]));
                key.extend(letters.take(OLDER_LENGTH - key.len()));
            }
            Ok(key)
        }
    }
}

fn random() -> Result<[u8; 32], Refusal> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!("the system has no random bytes: {error}");
        Refusal::unavailable("the system has no random bytes")
    })?;
    Ok(bytes)
}

/// What is kept of a key. It needs no salt: keys are random.
pub(crate) fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// One hash of several parts, different if any of them is.
pub(crate) fn hash_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_have_their_form() {
        let current = make(KeyForm::Current).unwrap();
        assert!(current.starts_with("pk_") && current.len() == 46, "{current}");
        let keys: HashSet<_> = (0..100).map(|_| make(KeyForm::Older).unwrap()).collect();
        assert_eq!(keys.len(), 100);
        for key in &keys {
            assert_eq!(key.len(), 10, "{key}");
            assert!(key.bytes().all(|byte| OLDER.contains(&byte)), "{key}");
        }
        let seen: HashSet<char> = keys.iter().flat_map(|key| key.chars()).collect();
        assert!(seen.len() > 30, "{seen:?}");
    }

    #[test]
    fn hashes_are_those_of_the_standard() {
        // FIPS 180-2, B.1.
        assert_eq!(hash("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_ne!(hash_of(&[b"ab", b"c"]), hash_of(&[b"a", b"bc"]));
    }
}
