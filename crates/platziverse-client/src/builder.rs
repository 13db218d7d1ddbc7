//! How a client is made.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::client::{Client, Servers};
use crate::error::Error;

/// How often a connection is asked whether the server is still there, and how long that may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a client is to be like.
#[derive(Clone)]
pub struct Builder {
    endpoints: Vec<String>,
    key: Option<String>,
    connect_timeout: Duration,
    request_timeout: Duration,
    retry_for: Duration,
}

impl Builder {
    pub(crate) fn new(endpoint: String) -> Self {
        Self {
            endpoints: vec![endpoint],
            key: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            retry_for: Duration::from_secs(30),
        }
    }

    /// One more server of the same system: the client goes over to the next when one does not
    /// answer.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// The user's key. Without one, a client can only [register](Client::register) a user.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// How long a connection may take to be made [5 s].
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one attempt of a request may take, besides what the server is asked to wait [10 s].
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// For how long a request that no server answers is tried again [30 s]; zero is not at all.
    #[must_use]
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Makes the client, in a tokio runtime. It connects when it is first used.
    pub fn build(self) -> Result<Client, Error> {
        let channels = self.endpoints.iter().map(|endpoint| self.channel(endpoint));
        let servers = Servers::new(channels.collect::<Result<_, _>>()?);
        let bearer = self.key.as_deref().map(bearer).transpose()?;
        Ok(Client::new(servers, bearer, self.request_timeout, self.retry_for))
    }

    fn channel(&self, endpoint: &str) -> Result<Channel, Error> {
        let invalid = |error: &dyn std::error::Error| {
            let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            Error::Invalid(format!("{endpoint:?} is no address such as http://host:50052: {why}"))
        };
        let parsed = Endpoint::from_shared(endpoint.to_owned()).map_err(|error| invalid(&error))?;
        let uri = parsed.uri();
        let is_known = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_known || uri.host().is_none() {
            return Err(invalid(&std::io::Error::other("it must begin with http:// or https://")));
        }
        let is_tls = uri.scheme_str() == Some("https");
        let parsed = parsed
            .connect_timeout(self.connect_timeout)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .user_agent(concat!("platziverse-client/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| invalid(&error))?;
        let parsed = match is_tls {
            true => parsed
                .tls_config(ClientTlsConfig::new().with_native_roots())
                .map_err(|error| invalid(&error))?,
            false => parsed,
        };
        Ok(parsed.connect_lazy())
    }
}

/// What a request carries.
fn bearer(key: &str) -> Result<MetadataValue<Ascii>, Error> {
    let value = format!("Bearer {key}").parse::<MetadataValue<Ascii>>();
    let mut value =
        value.map_err(|_| Error::Invalid("the key has characters that no key has".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wrong_is_said_at_once() {
        let check = |builder: Builder, want: Option<&str>| {
            let got = builder.build().err().map(|error| error.to_string());
            assert_eq!(got.is_some(), want.is_some(), "{got:?}");
            let want = want.unwrap_or_default();
            assert!(got.as_deref().unwrap_or_default().contains(want), "{got:?}");
        };
        let builder = |endpoint: &str| Client::builder(endpoint);
        check(builder("http://127.0.0.1:1").key("pk_x"), None);
        check(builder("https://h").endpoint("http://[::1]:1"), None);
        check(builder("127.0.0.1:1"), Some("http://"));
        check(builder("amqp://h:1"), Some("it must begin with http://"));
        check(builder("http://h:1").endpoint("nonsense at all"), Some("\"nonsense at all\""));
        check(builder("http://h:1").key("a\nb"), Some("no key has"));
    }

    #[test]
    fn no_key_is_shown() {
        assert!(!format!("{:?}", Client::builder("http://h").key("pk_secret")).contains("secret"));
    }
}
