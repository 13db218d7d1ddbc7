//! The MQTT edge: sessions that end in RabbitMQ.
//!
//! Three layers, each testable alone: the transport (bytes in, frames out: [`frame`], [`codec`]),
//! the [`session`] (a pure state machine), and the connection, one task that moves bytes, timers
//! and receipts between the two. Around them: who may do what ([`auth`]), what becomes of a publish
//! ([`judge`]), who hears what ([`subscriptions`]).

mod audience;
pub mod auth;
pub mod books;
pub mod codec;
mod connection;
pub mod frame;
mod hub;
pub mod judge;
mod lease;
mod live;
mod mailbox;
pub mod packet;
mod registry;
mod reporter;
mod server;
pub mod session;
mod settlement;
pub mod subscriptions;
mod transport;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use platziverse_broker::topology::Topology;
use platziverse_broker::{
    BrokerError, Context, LiveMessages, LiveOptions, LiveQueue, Publisher, PublisherOptions,
    TelemetryLanes,
};
use platziverse_config::{GatewayConfig, IngestConfig};
use platziverse_protocol::topic::{AGENT_DISCONNECTED, cut_binding_key, routing_key};
use platziverse_service::{Service, listener, raise_file_limit};
use tokio::sync::Semaphore;

use crate::audience::Audience;
use crate::auth::Authenticator;
use crate::books::GatewayMetrics;
use crate::hub::Hub;
use crate::packet::PacketId;
use crate::registry::Registry;
use crate::session::Limits;
use crate::settlement::Settlement;

/// How many topic aliases a client may set.
const TOPIC_ALIAS_MAX: u16 = 32;
/// How many QoS 1 deliveries may await their PUBACK.
const OUTBOUND_WINDOW: u16 = 64;
/// How many SUBSCRIBE and UNSUBSCRIBE of one client may await their answer.
const PENDING_SUBSCRIBES: usize = 16;
/// The least room for dead letters that await their confirm, in bytes.
const LETTERS_BUFFER_BYTES: usize = 16 * 1024 * 1024;
/// Room for what gateways tell each other, in bytes.
const SIGNALS_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Why the gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// RabbitMQ is not as it needs to be.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The MQTT port cannot be opened.
    #[error(
        "listening for MQTT on {address} (set gateway.listen, or PLATZIVERSE_GATEWAY__LISTEN, to a \
         free address)"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What came back.
        #[source]
        source: std::io::Error,
    },
    /// The process was asked to end before it could begin.
    #[error("asked to end before RabbitMQ took the first heartbeat")]
    Interrupted,
}

/// Runs a gateway until it is asked to end.
pub async fn run(service: Service) -> Result<(), GatewayError> {
    let settings = &service.settings.gateway;
    let connections = settings.max_connections;
    // Nobody has asked for as many connections as the default allows.
    let is_asked_for = connections != GatewayConfig::default().max_connections;
    raise_file_limit(connections, is_asked_for, "gateway.max_connections");
    let auth = Authenticator::new(settings);
    let listening = |source| GatewayError::Listen { address: settings.listen, source };
    let listener = listener::listen(settings.listen).map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;

    let topology = Topology::for_ingest(&service.settings.ingest, &settings.routes);
    let context = Context::new(&service, topology);
    let (hub, messages) = hub(&service, &context, auth).await?;
    let instance = service.instance.to_string();
    let options = LiveOptions::heartbeat(&instance);
    let (_, beats) = LiveQueue::start(&context, options).await?;

    let begun = Instant::now();
    if !lease::beat(&hub, &instance).await {
        return Err(GatewayError::Interrupted);
    }
    let drain = &service.drain;
    drain.spawn("heartbeats", lease::run(Arc::clone(&hub), instance, begun));
    drain.spawn("clocks", lease::listen(Arc::clone(&hub), beats));
    drain.spawn("live", live::run(Arc::clone(&hub), messages));
    tracing::info!(mqtt = %address, "MQTT 3.1.1 and 5 on {address}");
    service.ready();
    server::run(hub, listener).await;
    Ok(())
}

async fn hub(
    service: &Service,
    context: &Context,
    auth: Authenticator,
) -> Result<(Arc<Hub>, LiveMessages), GatewayError> {
    let settings = &service.settings.gateway;
    let options = |role, buffer_bytes| PublisherOptions {
        role,
        batch_records: settings.batch_records,
        batch_bytes: settings.batch_bytes,
        window: settings.publish_window,
        buffer_bytes,
    };
    let room = settings.publish_buffer_bytes;
    let storage = Publisher::<Settlement>::start(context, options("publish", room)).await?;
    let listeners = Publisher::start(context, options("deliver", room)).await?;
    let letters = options("dead letters", LETTERS_BUFFER_BYTES.max(room / 4));
    let graveyard = Publisher::start(context, letters).await?;
    let signals = Publisher::start(context, options("signals", SIGNALS_BUFFER_BYTES)).await?;
    let instance = service.instance.to_string();
    let mut live = LiveOptions::live(&instance, settings.live_queue_length);
    live.keys.extend(own_keys(&service.settings.ingest));
    let (live, messages) = LiveQueue::start(context, live).await?;
    let hub = Hub {
        limits: Arc::new(limits(settings)),
        connections_max: settings.max_connections,
        auth,
        metrics: GatewayMetrics::new(&service.metrics),
        drain: service.drain.clone(),
        storage,
        listeners,
        graveyard,
        signals,
        lanes: TelemetryLanes::new(service.settings.ingest.shards),
        live,
        audience: Audience::new(settings.bound_filters_max),
        registry: Mutex::new(Registry::default()),
        clock: Mutex::default(),
        begun: Instant::now(),
        open: AtomicUsize::new(0),
        last_words: Arc::new(Semaphore::new(hub::LAST_WORDS_BYTES)),
        roll_is_due: AtomicBool::new(false),
    };
    Ok((Arc::new(hub), messages))
}

/// What every gateway hears, whatever its clients subscribe to: topics too long for a key, whose
/// session was ended, and which client ids have moved.
fn own_keys(ingest: &IngestConfig) -> Vec<String> {
    let ended = routing_key(AGENT_DISCONNECTED);
    let mut keys = vec![cut_binding_key(), ended.clone()];
    keys.extend([hub::TAKEOVER, hub::ROLL].map(routing_key));
    if ingest.shards > 1 {
        keys.push(format!("{ended}.*"));
    }
    keys
}

fn limits(settings: &GatewayConfig) -> Limits {
    Limits {
        // The settings are checked to be at least 1.
        receive_maximum: PacketId::new(settings.receive_maximum).unwrap_or(PacketId::MAX),
        max_packet_size: settings.max_packet_size,
        topic_alias_max: TOPIC_ALIAS_MAX,
        outbound_window: PacketId::new(OUTBOUND_WINDOW).unwrap_or(PacketId::MIN),
        outbound_queue: settings.outbound_queue,
        pending_subscribes: PENDING_SUBSCRIBES,
        connect_timeout: settings.connect_timeout,
    }
}
