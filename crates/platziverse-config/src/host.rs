//! Which hosts a program may call.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::uri::split_address;

/// Hosts that may be called: `example.com`, `*.example.com` (every name below it, without itself) or
/// an IP address, `[::1]` in brackets; each alone, for all its ports, or with one, `example.com:8443`.
///
/// Names are ASCII: an international one stands in Punycode. Case does not count.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    text: String,
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Hosts {
    Name(String),
    /// Every name that ends with this, which begins with a dot.
    Below(String),
    Address(IpAddr),
}

/// Text that is no [`HostPattern`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("it is not {ALLOWED}")]
pub struct HostPatternError;

pub(crate) const ALLOWED: &str = "a host such as \"example.com\", \"*.example.com\", \"10.0.0.7\" or \
                                  \"[::1]\", alone or with a port, \"example.com:8443\"";

impl HostPattern {
    /// Whether it allows a host, a name or an IP address as a URL has it, with a port.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        match &self.hosts {
            Hosts::Name(name) => name.eq_ignore_ascii_case(host),
            Hosts::Below(end) => {
                let at = host.len().checked_sub(end.len()).filter(|at| *at > 0);
                at.and_then(|at| host.get(at..)).is_some_and(|its| its.eq_ignore_ascii_case(end))
            }
            Hosts::Address(address) => unbracketed(host).parse() == Ok(*address),
        }
    }
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = split_address(text).map_err(|_| HostPatternError)?;
        let is_bracketed = text.starts_with('[');
        let hosts = match (host.parse::<IpAddr>(), host.strip_prefix('*')) {
            (Ok(address), _) if address.is_ipv6() || !is_bracketed => Hosts::Address(address),
            _ if is_bracketed => return Err(HostPatternError),
            (_, Some(end)) if end.strip_prefix('.').is_some_and(is_name) => {
                Hosts::Below(end.to_owned())
            }
            _ if is_name(host) => Hosts::Name(host.to_owned()),
            _ => return Err(HostPatternError),
        };
        Ok(Self { text: text.to_owned(), hosts, port })
    }
}

/// Whether text is a host name, and none that a URL takes for an IPv4 address because its last label
/// is a number.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(plain)
    };
    let last = text.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let is_number = match last.strip_prefix("0x") {
        Some(digits) => digits.chars().all(|c| c.is_ascii_hexdigit()),
        None => last.chars().all(|c| c.is_ascii_digit()),
    };
    text.len() <= 253 && text.split('.').all(is_label) && !is_number
}

impl TryFrom<String> for HostPattern {
    type Error = HostPatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.text
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed() {
        let check = |pattern: &str, host: &str, port: u16, want: bool| {
            let pattern: HostPattern = pattern.parse().unwrap();
            assert_eq!(pattern.allows(host, port), want, "{pattern} {host} {port}");
        };
        check("example.com", "example.com", 80, true);
        check("example.com", "Example.COM", 8443, true);
        check("example.com", "www.example.com", 80, false);
        check("example.com", "example.com.evil.org", 80, false);
        check("example.com", "notexample.com", 80, false);
        check("example.com:8443", "example.com", 8443, true);
        check("example.com:8443", "example.com", 443, false);
        check("*.example.com", "a.example.com", 443, true);
        check("*.Example.com", "a.b.example.COM", 443, true);
        check("*.example.com", "example.com", 443, false);
        check("*.example.com", ".example.com", 443, false);
        check("*.example.com", "aexample.com", 443, false);
        check("*.example.com", "ä.example.com", 443, true);
        check("*.example.com:1", "a.example.com", 2, false);
        check("10.0.0.7", "10.0.0.7", 80, true);
        check("10.0.0.7:80", "10.0.0.7", 81, false);
        check("10.0.0.7", "10.0.0.70", 80, false);
        check("[::1]", "[::1]", 80, true);
        check("[::1]:80", "::1", 80, true);
        check("::1", "[0:0::1]", 80, true);
        check("3com:80", "3com", 80, true);
        check("localhost", "127.0.0.1", 80, false);
    }

    #[test]
    fn what_is_no_pattern() {
        for text in [
            "",
            "*",
            "*.",
            "*.*.com",
            "*example.com",
            "a.*.com",
            "a b",
            "a..b",
            "a.",
            ".a",
            "http://a",
            "a/b",
            "u@a",
            "a:0",
            "a:x",
            "a:",
            "[::1",
            "[::1]1",
            "[a]",
            "[10.0.0.7]",
            "10.0.0.300",
            "*.0.0.7",
            "127.1",
            "a.0x7F",
            "ä.com",
        ] {
            assert_eq!(text.parse::<HostPattern>(), Err(HostPatternError), "{text}");
        }
    }
}
