//! `database`: how PostgreSQL is reached.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};
use crate::secret::Secret;
use crate::uri::{Uri, UrlError, UrlParts, bracketed, encode};

const PORT: u16 = 5432;

/// How PostgreSQL is reached.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/name`. Loading takes it apart, so that the fields below
    /// are what is in force.
    pub url: Option<Secret>,
    /// Host name, IP address, or the directory of a Unix socket (begins with `/`).
    pub host: String,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
    /// Name of the database.
    pub name: String,
    /// Role of PostgreSQL.
    pub username: String,
    /// The role's password; without it none is sent (`trust` or `peer`).
    pub password: Option<Secret>,
    /// Connections that a process keeps for small queries; writers have their own.
    pub pool_size: usize,
    /// How long a connection may take to be made.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long one statement may run on the server.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: None,
            host: "127.0.0.1".to_owned(),
            port: PORT,
            name: "platziverse".to_owned(),
            username: "platziverse".to_owned(),
            password: None,
            pool_size: 4,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
        }
    }
}

pub(crate) const NAME: &str = "database";

// Identifiers of PostgreSQL have at most 63 bytes; longer ones are cut silently.
pub(crate) const KEYS: &[Key] = &[
    Key::new("url", Kind::Url("postgres://user:password@host:5432/name")).secret().optional(),
    Key::new("host", Kind::Host { socket: true }),
    Key::new("port", Kind::Whole { min: 1, max: 65_535 }),
    Key::new("name", Kind::Text { min: 1, max: 63 }),
    Key::new("username", Kind::Text { min: 1, max: 63 }),
    Key::new("password", Kind::Text { min: 0, max: 4_096 }).secret().optional(),
    Key::new("pool_size", Kind::Whole { min: 1, max: 1_000 }),
    Key::new(
        "connect_timeout",
        Kind::Span { min: Duration::from_millis(100), max: Duration::from_secs(300) },
    ),
    Key::new(
        "statement_timeout",
        Kind::Span { min: Duration::from_millis(100), max: Duration::from_secs(3_600) },
    ),
];

impl DatabaseConfig {
    /// Where it is, without any secret: `host:port/name`, for logs and errors.
    pub fn address(&self) -> String {
        format!("{}:{}/{}", bracketed(&self.host), self.port, self.name)
    }

    /// `postgres://user[:password]@host:port/name` from the parts, percent-encoded. The timeouts
    /// are not in it.
    pub fn uri(&self) -> Secret {
        let password = match &self.password {
            Some(password) => format!(":{}", encode(password.expose())),
            None => String::new(),
        };
        let host =
            if self.host.starts_with('/') { encode(&self.host) } else { bracketed(&self.host) };
        Secret::new(format!(
            "postgres://{}{password}@{host}:{}/{}",
            encode(&self.username),
            self.port,
            encode(&self.name)
        ))
    }

    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        schema::check_section(NAME, KEYS, self, problems);
    }
}

/// What a `postgres[ql]://` URL says, parameters `host`, `connect_timeout` (s) and an `sslmode` that
/// does not demand TLS included.
pub(crate) fn parts(url: &str) -> Result<UrlParts, UrlError> {
    let uri = Uri::parse(url)?;
    if !["postgres", "postgresql"].contains(&uri.scheme.as_str()) {
        return Err(UrlError::new("it does not begin with postgres://"));
    }
    let mut parts = UrlParts::default();
    let mut host = uri.host;
    for (name, value) in uri.query {
        match (name.as_str(), value.as_str()) {
            ("host", _) => host = Some(value),
            ("connect_timeout", _) => parts.state("connect_timeout", format!("{value}s")),
            ("sslmode", "disable" | "allow" | "prefer") => {}
            ("sslmode", _) => return Err(UrlError::new("TLS to PostgreSQL is not supported")),
            _ => {
                return Err(UrlError::new(
                    "of parameters it can only have host, connect_timeout and sslmode",
                ));
            }
        }
    }
    parts.state("host", host.ok_or_else(|| UrlError::new("it has no host"))?);
    match uri.port {
        Some(port) => parts.state("port", port),
        None => parts.imply("port", PORT),
    }
    for (name, value) in
        [("username", uri.username), ("password", uri.password), ("name", uri.path)]
    {
        if let Some(value) = value {
            parts.state(name, value);
        }
    }
    Ok(parts)
}
