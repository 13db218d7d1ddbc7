//! gRPC: `mom.v1`, and on a port of its own the older system's services, each with reflection and
//! health.

mod call;
mod connection;
mod consuming;
mod health;
mod inflow;
mod pace;
mod publishing;
mod service;
mod status;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use platziverse_config::MomConfig;
use platziverse_rpc::mom::mom_server::{MomServer, SERVICE_NAME};
use platziverse_service::Service;
use platziverse_service::listener::{ListenError, Listener, Peer};
use tonic::service::{Routes, RoutesBuilder};

use crate::core::{Core, HEADER_BYTES_MAX, HEADERS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, NAME_BYTES_MAX};
use crate::grpc::call::Calls;
use crate::grpc::health::Health;
use crate::grpc::service::MomService;
use crate::older;

/// The open listeners.
#[derive(Debug)]
pub struct Bound {
    mom: Listener,
    older: Option<Listener>,
}

/// Opens the listeners.
pub fn bind(settings: &MomConfig) -> Result<Bound, ListenError> {
    let mom = Listener::bind("gRPC", "mom.grpc_listen", settings.grpc_listen)?;
    let older =
        || Listener::bind("older gRPC", "mom.older_grpc_listen", settings.older_grpc_listen);
    Ok(Bound { mom, older: settings.older_wire.then(older).transpose()? })
}

impl Bound {
    /// Where `mom.v1` is.
    pub fn address(&self) -> SocketAddr {
        self.mom.address()
    }

    /// Where the older system's services are, unless they are switched off.
    pub fn older_address(&self) -> Option<SocketAddr> {
        self.older.as_ref().map(Listener::address)
    }

    /// Serves until the process is to end.
    pub fn serve(self, core: &Core, service: &Service) {
        let mom = MomServer::new(MomService::new(core.clone()))
            .max_decoding_message_size(message_bytes_max(core.settings()));
        let mut routes = Routes::builder();
        routes.add_service(mom);
        let routes = with_extras(routes, &[SERVICE_NAME], service);
        let gauge = ("mom_grpc_connections", "gRPC connections");
        serve(self.mom, "grpc", gauge, Calls::new(routes, core, service, true), service);
        if let Some(listener) = self.older {
            let routes = with_extras(older::services(core), &older::SERVICES, service);
            let gauge = ("mom_older_grpc_connections", "gRPC connections of the older wire");
            serve(listener, "older grpc", gauge, Calls::new(routes, core, service, false), service);
        }
    }
}

/// What else of an allowed publish there is than its body, and some room, so that what is a little
/// too large is refused in words.
const AROUND_BODY: usize =
    HEADER_BYTES_MAX + HEADERS_MAX * 16 + IDEMPOTENCY_KEY_BYTES_MAX + NAME_BYTES_MAX + 65_536;

/// Bytes of a request.
pub(crate) fn message_bytes_max(settings: &MomConfig) -> usize {
    settings.body_bytes_max + AROUND_BODY
}

/// Adds health and reflection of these services.
fn with_extras(mut routes: RoutesBuilder, services: &'static [&str], service: &Service) -> Router {
    routes.add_service(health::server(Health::new(services, service)));
    match health::reflection(services) {
        Ok((current, alpha)) => {
            routes.add_service(current).add_service(alpha);
        }
        Err(error) => tracing::error!("the services are not described by reflection: {error}"),
    }
    routes.routes().prepare().into_axum_router()
}

fn serve(
    listener: Listener,
    name: &'static str,
    gauge: (&'static str, &'static str),
    calls: Calls,
    service: &Service,
) {
    let calls = Arc::new(calls);
    let watched = service.clone();
    service.drain.spawn(name, async move {
        let converse = |stream, peer: Peer| connection::converse(stream, peer, Arc::clone(&calls));
        let connections_max = watched.settings.mom.connections_max;
        listener.accept(&watched, gauge, connections_max, converse).await;
    });
}
