//! Every operation, once: HTTP, gRPC and the older wire only say what is asked, and show what comes
//! back.

mod books;
mod catalogue;
mod changes;
mod consuming;
mod key;
mod limits;
mod message;
mod name;
mod publishing;
mod reconciler;
mod refusal;
mod users;

use std::sync::Arc;

use platziverse_broker::BrokerError;
use platziverse_broker::Context;
use platziverse_broker::mom::{Mom, MomQueueOptions, MomSettings};
use platziverse_broker::topology::Topology;
use platziverse_config::MomConfig;
use platziverse_service::{Drain, Service};
use platziverse_store::mom::{Found, Lookup};
use platziverse_store::{Store, StoreError};
use tokio::sync::Semaphore;
use uuid::Uuid;

pub use platziverse_broker::mom::{
    AckMode, MomError, MomMessage, MomStream, Settle, Settler, StreamDelivery, Taken,
};
pub use platziverse_store::mom::{Object, ObjectKind, ObjectOptions, Which};

pub use self::catalogue::{Listed, Listing, PAGE_MAX, Page, Shown};
pub use self::changes::Outcome;
pub use self::consuming::{LEASE_MAX, LEASE_MIN, PEEK_MAX, PREFETCH_MAX};
pub use self::key::KeyForm;
pub use self::message::{HEADER_BYTES_MAX, HEADERS_MAX, NewMessage};
pub use self::name::NAME_BYTES_MAX;
pub use self::publishing::{IDEMPOTENCY_KEY_BYTES_MAX, OnItsWay, Prepared, Published};
pub use self::refusal::{Code, Refusal};
pub use self::users::NewUser;

use self::books::MomMetrics;
use self::limits::Limits;

/// How many requests may look into queues at a time: each holds what it sees.
const PEEKING: usize = 4;

/// Every operation on users, topics, queues and messages. Cloning shares everything.
#[derive(Clone)]
pub struct Core {
    inner: Arc<Inner>,
}

struct Inner {
    settings: MomConfig,
    drain: Drain,
    store: Store,
    lookup: Lookup,
    broker: Mom,
    limits: Limits,
    metrics: MomMetrics,
    peeking: Semaphore,
}

/// Why a server of topics and queues cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// RabbitMQ is not as it needs to be.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// PostgreSQL is not as it needs to be.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who asks: a key that somebody has shown. Whether a user has it is looked up with each request,
/// together with what the request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    key_hash: [u8; 32],
}

impl Caller {
    /// Whoever shows this key.
    pub fn of(key: &str) -> Self {
        Self { key_hash: key::hash(key) }
    }
}

impl Core {
    /// Connects to PostgreSQL and RabbitMQ, and begins to finish what others have left half-done.
    pub async fn start(service: &Service) -> Result<Self, CoreError> {
        let settings = &service.settings;
        // Asked once: a database that is missing or behind stops the start. Later it is waited for.
        let store = Store::connect(&settings.database, &service.connection_name()).await?;
        store.check_schema().await?;
        let context = Context::new(service, Topology::for_mom(&settings.ingest));
        let broker = Mom::start(&context, MomSettings::new(service.instance.to_string())).await?;
        let inner = Inner {
            settings: settings.mom.clone(),
            drain: service.drain.clone(),
            lookup: Lookup::start(&service.drain, &store),
            store,
            broker,
            limits: Limits::new(&settings.mom),
            metrics: MomMetrics::new(&service.metrics),
            peeking: Semaphore::new(PEEKING),
        };
        let core = Self { inner: Arc::new(inner) };
        reconciler::start(&core, service);
        Ok(core)
    }

    /// The settings in force.
    pub fn settings(&self) -> &MomConfig {
        &self.inner.settings
    }

    /// The end of the process.
    pub fn drain(&self) -> &Drain {
        &self.inner.drain
    }

    /// Who asks, and what is known of what it is about. Counts as a request.
    async fn ask(
        &self,
        caller: &Caller,
        about: Option<(ObjectKind, &str)>,
    ) -> Result<(Uuid, Found), Refusal> {
        let (user, found) = self.known(caller, about).await?;
        self.inner.limits.request(user)?;
        Ok((user, found))
    }

    async fn known(
        &self,
        caller: &Caller,
        about: Option<(ObjectKind, &str)>,
    ) -> Result<(Uuid, Found), Refusal> {
        if let Some((_, name)) = about {
            name::check(name)?;
        }
        let found = self.inner.lookup.ask(caller.key_hash, about).await?;
        let unknown = || {
            let detail = "no user has the key that was shown: check it, or become a user";
            Refusal::new(Code::UnknownKey, detail)
        };
        let user = found.user.ok_or_else(unknown)?;
        Ok((user, found))
    }

    /// The limits of a queue that is made for these options.
    fn queue_options(&self, options: &ObjectOptions) -> MomQueueOptions {
        let settings = &self.inner.settings;
        MomQueueOptions {
            max_length: options.max_length.unwrap_or(settings.queue_length_max),
            max_bytes: settings.queue_bytes_max,
            delivery_limit: options.delivery_limit.unwrap_or(settings.delivery_limit),
            message_ttl: options.message_ttl,
        }
    }
}

/// That there is nothing of that kind and name.
fn unknown(kind: ObjectKind, name: &str) -> Refusal {
    let detail = format!("there is no {kind} {name:?}: create it first, or check the name");
    Refusal::new(Code::unknown(kind), detail)
}
