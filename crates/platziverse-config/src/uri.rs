//! The parts of a connection URL (RFC 3986), percent-encoding undone.

use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

use serde_json::Value;

/// Why a connection URL cannot be used. Never says what the URL is: it may hold a password.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct UrlError {
    pub(crate) reason: String,
}

impl UrlError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Settings of one section that a URL gives.
#[derive(Default)]
pub(crate) struct UrlParts {
    /// Written in the URL.
    pub(crate) stated: Vec<(&'static str, Value)>,
    /// Not written, but what such a URL means (the scheme's port).
    pub(crate) implied: Vec<(&'static str, Value)>,
}

impl UrlParts {
    pub(crate) fn state(&mut self, name: &'static str, value: impl Into<Value>) {
        self.stated.push((name, value.into()));
    }

    pub(crate) fn imply(&mut self, name: &'static str, value: impl Into<Value>) {
        self.implied.push((name, value.into()));
    }
}

/// A URL taken apart.
#[derive(Eq, PartialEq)]
pub struct Uri {
    /// In small letters.
    pub scheme: String,
    /// Before the `@`.
    pub username: Option<String>,
    /// After the user name.
    pub password: Option<String>,
    /// A name or an address, IPv6 without brackets.
    pub host: Option<String>,
    /// 1 to 65535.
    pub port: Option<u16>,
    /// Without the first slash; `None` if nothing follows it.
    pub path: Option<String>,
    /// Names and values, in order.
    pub query: Vec<(String, String)>,
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, .. } = self;
        f.debug_struct("Uri")
            .field("scheme", scheme)
            .field("host", host)
            .field("port", port)
            .finish_non_exhaustive()
    }
}

impl Uri {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// If it is none; the error does not say what it is, since it may hold a password.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| UrlError::new("it has no `://`"))?;
        if rest.contains(['#', ' ']) {
            return Err(UrlError::new("`#` and spaces must be percent-encoded"));
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // Most likely the rest of a password with a `/` in it.
        if path.contains('@') {
            return Err(UrlError::new("a `/` before `@` must be percent-encoded"));
        }
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, "")))
        {
            Some((name, password)) => (filled(name)?, filled(password)?),
            None => (None, None),
        };
        let (host, port) = split_address(address)?;
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            username,
            password,
            host: filled(host)?,
            port,
            path: filled(path)?,
            query: parameters(query)?,
        })
    }
}

/// `host`, `host:port` or `[IPv6]:port`; a bare IPv6 address is a host.
pub(crate) fn split_address(text: &str) -> Result<(&str, Option<u16>), UrlError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) =
                rest.split_once(']').ok_or_else(|| UrlError::new("`[` without `]`"))?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err(UrlError::new("after `]` there can only be `:` and a port"));
            }
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            Some(_) if text.parse::<Ipv6Addr>().is_err() => {
                return Err(UrlError::new(
                    "it has several `:` and is no IPv6 address (is the `@` after the password \
                     missing?)",
                ));
            }
            _ => (text, None),
        },
    };
    match port {
        None => Ok((host, None)),
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => Ok((host, Some(port))),
            _ => Err(UrlError::new(
                "its port is not a number from 1 to 65535 (is a `/`, `:` or `@` not encoded?)",
            )),
        },
    }
}

fn filled(text: &str) -> Result<Option<String>, UrlError> {
    if text.is_empty() { Ok(None) } else { decode(text).map(Some) }
}

fn parameters(query: &str) -> Result<Vec<(String, String)>, UrlError> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        })
        .collect()
}

fn decode(text: &str) -> Result<String, UrlError> {
    let wrong = || UrlError::new("a `%` is not followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|d| char::from(d).to_digit(16)).ok_or_else(wrong);
        let code = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(code).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| UrlError::new("it is not UTF-8"))
}

/// Percent-encodes all but the unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A host as `host:port` wants it: an IPv6 address in brackets.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match Uri::parse(text) {
            Ok(uri) => format!(
                "{} {:?} {:?} {:?} {:?} {:?} {:?}",
                uri.scheme, uri.username, uri.password, uri.host, uri.port, uri.path, uri.query
            )
            .replace("Some", "")
            .replace("None", "-"),
            Err(error) => error.reason,
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let check = |text: &str, expected: &str| assert_eq!(shown(text), expected, "{text}");
        check("amqp://h", r#"amqp - - ("h") - - []"#);
        check("AMQP://h:1/", r#"amqp - - ("h") (1) - []"#);
        check("amqp://u@h", r#"amqp ("u") - ("h") - - []"#);
        check("amqp://u:p%40%2Fs@h/%2f", r#"amqp ("u") ("p@/s") ("h") - ("/") []"#);
        check("amqp://u:p@ss@h/v", r#"amqp ("u") ("p@ss") ("h") - ("v") []"#);
        check("amqp://[::1]:5672/v", r#"amqp - - ("::1") (5672) ("v") []"#);
        check("postgres:///db?host=%2Frun", r#"postgres - - - - ("db") [("host", "/run")]"#);
        check("h:5672", "it has no `://`");
        check("amqp://u:a b@h", "`#` and spaces must be percent-encoded");
        check("amqp://h/%2", "a `%` is not followed by two hexadecimal digits");
        check("amqp://h/%ff", "it is not UTF-8");
        check("amqp://[::1/v", "`[` without `]`");
        check("amqp://u:12/q@h", "a `/` before `@` must be percent-encoded");
        let several = "it has several `:` and is no IPv6 address (is the `@` after the password \
                       missing?)";
        check("amqp://u:p:h:5672/v", several);
        check("amqp://u@p:h:5672", several);
        for text in ["amqp://h:x", "amqp://h:0", "amqp://h:70000"] {
            assert!(shown(text).starts_with("its port is not a number"), "{text}");
        }
    }

    #[test]
    fn encoding_is_undone_by_decoding() {
        for text in ["", "plain", "p@ss:w/rd?#%", "ñandú 😀"] {
            assert_eq!(decode(&encode(text)).as_deref(), Ok(text));
        }
    }
}
