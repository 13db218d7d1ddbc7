//! `platziverse user`: the gateway's users.

use anyhow::anyhow;
use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHasher, SaltString};
use clap::Subcommand;

use crate::{output, terminal};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hash a password for gateway.users; it is asked for, or read from standard input
    ///
    /// In a shell, the hash belongs in single quotes: in double quotes, its `$` would expand.
    Hash {
        /// Print the user's whole entry for the configuration file instead of the hash alone
        #[arg(long, value_name = "NAME")]
        username: Option<String>,
    },
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Hash { username } = command;
    let password = terminal::password().await?;
    let hash = hash(&password)?;
    output::print(&match username {
        Some(username) => entry(&username, &hash),
        None => format!("{hash}\n"),
    })
}

/// An argon2id hash as a PHC string, with a salt of its own.
fn hash(password: &[u8]) -> anyhow::Result<String> {
    let salt = SaltString::generate(&mut OsRng);
    let hash = Argon2::default().hash_password(password, &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| anyhow!("hashing the password: {error}"))
}

fn entry(username: &str, hash: &str) -> String {
    // What JSON escapes in a string, TOML escapes in the same way.
    let username = serde_json::Value::from(username);
    format!("[[gateway.users]]\nusername = {username}\npassword_hash = \"{hash}\"\n")
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHash, PasswordVerifier};
    use platziverse_config::{Layers, Settings};

    use super::*;

    #[test]
    fn hashes_verify_and_differ() {
        let (one, two) = (hash(b"secret").unwrap(), hash(b"secret").unwrap());
        assert_ne!(one, two);
        assert!(one.starts_with("$argon2id$v=19$"), "{one}");
        let parsed = PasswordHash::new(&one).unwrap();
        assert!(Argon2::default().verify_password(b"secret", &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"Secret", &parsed).is_err());
    }

    #[test]
    fn an_entry_is_what_the_settings_read() {
        let dir = std::env::temp_dir();
        let file = dir.join(format!("platziverse-user-{}.toml", std::process::id()));
        let hash = hash(b"secret").unwrap();
        std::fs::write(&file, entry("a \"b\" ñ\t", &hash)).unwrap();
        let layers = Layers { file: Some(file.clone()), dir, ..Layers::default() };
        let loaded = Settings::load(&layers).unwrap();
        std::fs::remove_file(file).unwrap();
        let user = &loaded.settings.gateway.users[0];
        assert_eq!((user.username.as_str(), user.password_hash.expose()), ("a \"b\" ñ\t", &*hash));
    }
}
