//! The HTTP client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use platziverse_config::TasksConfig;
use rustls::{ClientConfig, RootCertStore};

use super::address::Resolver;

/// Sends requests over HTTP/1.1, without TLS and with it. It knows no proxies.
pub(super) type HttpClient = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// How long a connection that nobody uses is kept. Servers close them after 5 s and more, and a
/// request that meets such an end has to be tried again.
const IDLE: Duration = Duration::from_secs(4);

/// Connections to one host that are kept while nobody uses them.
const IDLE_PER_HOST: usize = 16;

/// A client that trusts the certificates which `roots` vouch for.
pub(super) fn client(
    settings: &TasksConfig,
    roots: RootCertStore,
) -> Result<HttpClient, rustls::Error> {
    let mut http =
        HttpConnector::new_with_resolver(Resolver { allow_private: settings.http_allow_private });
    // The connector for https hands over to it.
    http.enforce_http(false);
    http.set_nodelay(true);
    // Shared out among the addresses of a host, so that one that is silent leaves time for others.
    http.set_connect_timeout(Some(settings.http_timeout));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls(roots)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_PER_HOST)
        .build(connector))
}

fn tls(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The certificates that the operating system trusts.
pub(super) fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let errors = found.errors;
        tracing::warn!(?errors, "no root certificate found: http.request can call no https");
    }
    roots
}
