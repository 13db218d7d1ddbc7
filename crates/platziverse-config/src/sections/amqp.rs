//! `amqp`: how RabbitMQ is reached.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};
use crate::secret::Secret;
use crate::uri::{Uri, UrlError, UrlParts, bracketed, encode};

const PORT: u16 = 5672;
pub(crate) const PORT_TLS: u16 = 5671;

/// How RabbitMQ is reached.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AmqpConfig {
    /// Everything but the two durations in one, `amqp[s]://user:password@host:port/vhost`. Loading
    /// takes it apart, so that the fields below are what is in force.
    pub url: Option<Secret>,
    /// Host name or IP address.
    pub host: String,
    /// TCP port; with `tls` and nothing said about it, 5671.
    pub port: u16,
    /// User of RabbitMQ.
    pub username: String,
    /// The user's password.
    pub password: Secret,
    /// Virtual host.
    pub vhost: String,
    /// Whether the connection is encrypted (`amqps`).
    pub tls: bool,
    /// How long TCP, TLS and the AMQP handshake may take together.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Silence after which a connection is taken for dead, whole seconds (AMQP 0-9-1, 4.2.7).
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
}

impl Default for AmqpConfig {
    fn default() -> Self {
        Self {
            url: None,
            host: "127.0.0.1".to_owned(),
            port: PORT,
            username: "guest".to_owned(),
            password: Secret::new("guest"),
            vhost: "/".to_owned(),
            tls: false,
            connect_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(10),
        }
    }
}

pub(crate) const NAME: &str = "amqp";

// AMQP 0-9-1 sends user, vhost and names as short strings: at most 255 bytes.
pub(crate) const KEYS: &[Key] = &[
    Key::new("url", Kind::Url("amqp://user:password@host:5672/vhost")).secret().optional(),
    Key::new("host", Kind::Host { socket: false }),
    Key::new("port", Kind::Whole { min: 1, max: 65_535 }),
    Key::new("username", Kind::Text { min: 1, max: 255 }),
    Key::new("password", Kind::Text { min: 0, max: 4_096 }).secret(),
    Key::new("vhost", Kind::Text { min: 1, max: 255 }),
    Key::new("tls", Kind::Flag),
    Key::new(
        "connect_timeout",
        Kind::Span { min: Duration::from_millis(100), max: Duration::from_secs(300) },
    ),
    Key::new(
        "heartbeat",
        Kind::Span { min: Duration::from_secs(1), max: Duration::from_secs(600) },
    ),
];

impl AmqpConfig {
    /// What `amqp[s]://user:password@host:port/vhost` says, and the defaults for what it does not.
    ///
    /// # Errors
    ///
    /// If it is no such URL.
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        let UrlParts { stated, implied } = parts(url)?;
        let fields = stated.into_iter().chain(implied);
        let fields = fields.map(|(name, value)| (name.to_owned(), value)).collect();
        serde_json::from_value(serde_json::Value::Object(fields))
            .map_err(|error| UrlError::new(error.to_string()))
    }

    /// Where it is, without any secret: `host:port/vhost`, for logs and errors.
    pub fn address(&self) -> String {
        let vhost = self.vhost.strip_prefix('/').unwrap_or(&self.vhost);
        format!("{}:{}/{vhost}", bracketed(&self.host), self.port)
    }

    /// `amqp[s]://user:password@host:port/vhost?heartbeat=…&connection_timeout=…` from the parts,
    /// percent-encoded.
    pub fn uri(&self) -> Secret {
        Secret::new(format!(
            // The host is encoded and not bracketed: lapin takes an IPv6 address in brackets for
            // localhost.
            "{}://{}:{}@{}:{}/{}?heartbeat={}&connection_timeout={}",
            if self.tls { "amqps" } else { "amqp" },
            encode(&self.username),
            encode(self.password.expose()),
            encode(&self.host),
            self.port,
            encode(&self.vhost),
            self.heartbeat.as_secs(),
            self.connect_timeout.as_millis(),
        ))
    }

    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        schema::check_section(NAME, KEYS, self, problems);
        if self.heartbeat.subsec_nanos() != 0 {
            problems.wrong(
                "amqp.heartbeat",
                humantime::format_duration(self.heartbeat),
                "whole seconds, such as \"10s\"",
            );
        }
    }
}

/// What an `amqp[s]://` URL says, parameters `heartbeat` (s) and `connection_timeout` (ms) included.
pub(crate) fn parts(url: &str) -> Result<UrlParts, UrlError> {
    let uri = Uri::parse(url)?;
    let tls = match uri.scheme.as_str() {
        "amqp" => false,
        "amqps" => true,
        _ => return Err(UrlError::new("it does not begin with amqp:// or amqps://")),
    };
    let mut parts = UrlParts::default();
    parts.state("tls", tls);
    parts.state("host", uri.host.ok_or_else(|| UrlError::new("it has no host"))?);
    match uri.port {
        Some(port) => parts.state("port", port),
        None => parts.imply("port", if tls { PORT_TLS } else { PORT }),
    }
    for (name, value) in
        [("username", uri.username), ("password", uri.password), ("vhost", uri.path)]
    {
        if let Some(value) = value {
            parts.state(name, value);
        }
    }
    for (name, value) in uri.query {
        match (name.as_str(), value.parse::<u32>()) {
            ("heartbeat", Ok(seconds)) => parts.state("heartbeat", format!("{seconds}s")),
            ("connection_timeout", Ok(ms)) => parts.state("connect_timeout", format!("{ms}ms")),
            ("heartbeat" | "connection_timeout", Err(_)) => {
                return Err(UrlError::new(format!("its parameter {name} is no whole number")));
            }
            _ => {
                return Err(UrlError::new(
                    "of parameters it can only have heartbeat and connection_timeout",
                ));
            }
        }
    }
    Ok(parts)
}
