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
use platziverse_service::Service;

use crate::core::{Core, CoreError};
use crate::http::{ListenError, Listener};

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
    raise_file_limit(settings);
    let listener = Listener::bind("HTTP", "listen", settings.listen)?;
    let grpc = grpc::bind(settings)?;
    let core = Core::start(&service).await?;
    announce(&service, &listener, &grpc);
    let router = http::router(core.clone()).merge(older::router(core.clone()));
    let router = http::with_fallbacks(router);
    grpc.serve(&core, &service);
    service.ready();
    listener.serve(router, &service).await;
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

/// Fewer open files than this are few for any server.
const FEW_FILES: u64 = 1_000;

/// Each connection is an open file, and each listener has as many as are allowed; many systems allow
/// 1,024 files unless asked for more.
fn raise_file_limit(settings: &MomConfig) {
    let listeners = if settings.older_wire { 3 } else { 2 };
    let connections = settings.connections_max.saturating_mul(listeners) as u64;
    let wanted = connections.saturating_add(512);
    match rlimit::increase_nofile_limit(wanted) {
        Ok(allowed) if allowed < wanted && allowed < FEW_FILES => tracing::warn!(
            "only {allowed} open files are allowed, which is less than {connections} connections \
             (mom.connections_max at each of {listeners} listeners) need: raise the limit (ulimit -n)"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!("the limit of open files could not be raised: {error}"),
    }
}
