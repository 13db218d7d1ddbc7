//! URLs like `scheme://user:password@host:port/path`, taken apart.

use std::net::{SocketAddr, ToSocketAddrs};

/// The same server with another path.
pub(crate) fn with_path(url: &str, path: &str) -> String {
    let (server, _) = split_path(url);
    format!("{server}/{path}")
}

/// The same credentials and path at another address.
pub(crate) fn with_address(url: &str, address: SocketAddr) -> String {
    let (server, path) = split_path(url);
    let (credentials, _) = split_credentials(server);
    format!("{credentials}@{address}/{path}")
}

/// The address of the server.
pub(crate) fn address(url: &str) -> SocketAddr {
    let (server, _) = split_path(url);
    let (_, address) = split_credentials(server);
    resolved(address)
}

/// The address of the server of a URL without credentials.
pub(crate) fn host(url: &str) -> SocketAddr {
    let (server, _) = split_path(url);
    resolved(server.rsplit('/').next().unwrap_or_default())
}

fn resolved(address: &str) -> SocketAddr {
    let mut found = address.to_socket_addrs().unwrap_or_else(|error| panic!("{address}: {error}"));
    found.next().unwrap_or_else(|| panic!("{address}: no address"))
}

fn split_path(url: &str) -> (&str, &str) {
    url.rsplit_once('/').unwrap_or_else(|| panic!("{}", shape()))
}

fn split_credentials(server: &str) -> (&str, &str) {
    server.rsplit_once('@').unwrap_or_else(|| panic!("{}", shape()))
}

/// Without the URL itself, which has a password.
fn shape() -> &'static str {
    "the servers' URLs must look like scheme://user:password@host:port/path"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let url = "amqp://u:p@127.0.0.1:5672/%2f";
        let other = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(with_path(url, "v"), "amqp://u:p@127.0.0.1:5672/v");
        assert_eq!(with_address(url, other), "amqp://u:p@127.0.0.1:1/%2f");
        let own = SocketAddr::from(([127, 0, 0, 1], 5672));
        assert_eq!((address(url), host("http://127.0.0.1:5672/api")), (own, own));
    }
}
