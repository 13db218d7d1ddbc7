//! Hashes of passwords, as `platziverse user hash` makes them.

use argon2::password_hash::PasswordHash;
use argon2::{Algorithm, Params, Version};

/// In words, what a hash must be.
pub(crate) const ALLOWED: &str = "an argon2 hash in PHC form, which `platziverse user hash` makes";

/// Why no password could ever match, if so.
pub(crate) fn check(text: &str) -> Result<(), String> {
    // Between double quotes, a shell takes `$argon2id` and the like for variables.
    const CUT: &str = "it is cut or changed: did a shell expand its `$`? Put it in single quotes";
    if !text.starts_with("$argon2") {
        return Err(
            "it does not begin with `$argon2`: it is no hash, or a shell expanded its `$`; \
                    put it in single quotes"
                .to_owned(),
        );
    }
    let hash = PasswordHash::new(text).map_err(|_| CUT.to_owned())?;
    if Algorithm::try_from(hash.algorithm).is_err() {
        return Err("its algorithm is none of argon2id, argon2i and argon2d".to_owned());
    }
    if hash.version.is_some_and(|version| Version::try_from(version).is_err()) {
        return Err("its version is unknown".to_owned());
    }
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(format!("it has no salt or no hash at its end; {CUT}"));
    }
    Params::try_from(&hash).map(|_| ()).map_err(|_| "its parameters m, t, p are wrong".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes() {
        const SALT: &str = "c2FsdHNhbHQ";
        const HASH: &str = "aGFzaGhhc2hoYXNoaGFzaA";
        let check = |text: String, says: Option<&str>| match (check(&text), says) {
            (Ok(()), None) => {}
            (Err(reason), Some(says)) => assert!(reason.contains(says), "{text}: {reason}"),
            (checked, _) => panic!("{text}: {checked:?}"),
        };
        for algorithm in ["argon2id", "argon2i", "argon2d"] {
            check(format!("${algorithm}$v=19$m=4096,t=3,p=1${SALT}${HASH}"), None);
        }
        check(format!("$argon2id$m=4096,t=3,p=1${SALT}${HASH}"), None);
        check("hunter2".to_owned(), Some("it is no hash"));
        check("$2b$12$abc".to_owned(), Some("it is no hash"));
        check("=19=4096,t=3,p=1".to_owned(), Some("single quotes"));
        check("$argon2".to_owned(), Some("none of argon2id"));
        check("$argon2x$v=19$m=4096,t=3,p=1$c2FsdHNhbHQ".to_owned(), Some("none of argon2id"));
        check("$argon2id$v=19".to_owned(), Some("no salt"));
        check(format!("$argon2id$v=19$m=4096,t=3,p=1${SALT}"), Some("no salt"));
        check("$argon2id$v=19$m=4096,t=3,p=1$...".to_owned(), Some("cut"));
        check(format!("$argon2id$v=7$m=4096,t=3,p=1${SALT}${HASH}"), Some("version"));
        check(format!("$argon2id$v=19$m=1,t=3,p=1${SALT}${HASH}"), Some("parameters"));
    }
}
