//! Topics and queues for applications: a catalogue in PostgreSQL, messages in RabbitMQ, and servers
//! that keep neither, so that any number of them run side by side.
//!
//! [`core`] has every operation once; [`http`] shows them at `/v1`, [`grpc`] as `mom.v1`, and [`older`]
//! as clients of the older system know them.

pub mod core;
pub mod grpc;
pub mod http;
pub mod older;

use platziverse_config::MomConfig;
use platziverse_service::listener::{ListenError, Listener};
use platziverse_service::{Service, raise_file_limit};

use crate::core::{Core, CoreError};

/// Why a server of topics and queues cannot start.
#[derive(Debug, thiserror::Error)]
pub enum MomServiceError {
    /// What it keeps nothing without.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// A port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Runs a server until it is asked to end.
pub async fn run(service: Service) -> Result<(), MomServiceError> {
    let settings = &service.settings.mom;
    // Each listener has as many connections as are allowed.
    let listeners = if settings.older_wire { 3 } else { 2 };
    let is_asked_for = settings.connections_max != MomConfig::default().connections_max;
    let connections = settings.connections_max.saturating_mul(listeners);
    raise_file_limit(connections, is_asked_for, "mom.connections_max at each listener");
    let listener = Listener::bind("HTTP", "mom.listen", settings.listen)?;
    let grpc = grpc::bind(settings)?;
    let core = Core::start(&service).await?;
    announce(&service, &listener, &grpc);
    let router = http::router(core.clone()).merge(older::router(core.clone()));
    let router = http::with_fallbacks(router);
    grpc.serve(&core, &service);
    service.ready();
    http::serve(listener, router, &service).await;
    Ok(())
}

/// Says what this server does, and where.
fn announce(service: &Service, listener: &Listener, grpc: &grpc::Bound) {
    let settings = &service.settings;
    let (broker, database) = (settings.amqp.address(), settings.database.address());
    let http = format!("http://{}", listener.address());
    let rpc = grpc.address().to_string();
    let older = match grpc.older_address() {
        Some(address) => format!("{http}/create_user, gRPC {address}"),
        None => "off".to_owned(),
    };
    let facts = [
        ("http", http.clone()),
        ("grpc", rpc.clone()),
        ("older", older.clone()),
        ("broker", broker.clone()),
        ("database", database.clone()),
    ];
    if !service.show_banner(&facts) {
        tracing::info!(http, grpc = rpc, older, broker, database, "what this server does");
    }
}
