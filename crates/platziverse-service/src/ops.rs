//! The operator's listener: `/healthz`, `/readyz`, `/metrics`.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;

use crate::{Drain, Metrics, Readiness, Service};

/// The listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "listening on {address} for health and metrics (set ops.listen, or PLATZIVERSE_OPS__LISTEN, \
     to a free address)"
)]
pub struct OpsError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

/// A bound listener that serves from [`OpsListener::serve`] on.
#[derive(Debug)]
pub struct OpsListener {
    listener: TcpListener,
    address: SocketAddr,
}

#[derive(Clone)]
struct Shown {
    readiness: Readiness,
    metrics: Metrics,
    drain: Drain,
}

impl OpsListener {
    /// Opens the listener; port 0 takes any free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, OpsError> {
        let failed = |source| OpsError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves as long as it is polled: while the process drains, its metrics are still of use.
    pub async fn serve(self, service: &Service) {
        let shown = Shown {
            readiness: service.readiness.clone(),
            metrics: service.metrics.clone(),
            drain: service.drain.clone(),
        };
        let router = Router::new()
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(shown);
        if let Err(error) = axum::serve(self.listener, router).await {
            tracing::error!("health and metrics are not served any more: {error}");
        }
        std::future::pending().await
    }
}

async fn readyz(State(shown): State<Shown>) -> impl IntoResponse {
    let draining = shown.drain.is_requested();
    let ready = shown.readiness.is_ready() && !draining;
    let dependencies: serde_json::Map<_, _> = (shown.readiness.states().into_iter())
        .map(|(name, state)| (name, state.err().unwrap_or_else(|| "ready".to_owned()).into()))
        .collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "ready": ready, "draining": draining, "dependencies": dependencies,
    });
    (status, Json(body))
}

async fn metrics(State(shown): State<Shown>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shown.metrics.encode())
}
