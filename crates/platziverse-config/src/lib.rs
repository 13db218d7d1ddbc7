//! Every setting of Platziverse.
//!
//! # Layers
//!
//! A setting has a section and a name, `amqp.host`. Its value comes from the last of these that has
//! one:
//!
//! 1. the built-in default;
//! 2. a file: `--config FILE`, else the one that `PLATZIVERSE_CONFIG` names, else `platziverse.toml`
//!    or `settings.json` in the working directory if there is one; TOML or JSON by its ending;
//! 3. the environment: `PLATZIVERSE_DATABASE__POOL_SIZE=8` is `database.pool_size` (`__` between
//!    section and name). `PLATZIVERSE_DATABASE__PASSWORD_FILE=/run/secrets/password` reads the value
//!    from a file, without its last line break.
//!
//! In the environment, text is taken as it is, without quotes; a list is separated by commas, or
//! JSON; a list of tables is JSON. A setting that can be unset (a URL, `ops.listen`,
//! `database.password`) is not set by an empty variable, and an empty `…_FILE` counts as none.
//! Variables that Kubernetes makes for a Service (`PLATZIVERSE_GATEWAY_SERVICE_HOST`,
//! `PLATZIVERSE_GATEWAY_PORT=tcp://…`) are passed over.
//!
//! `amqp.url` and `database.url` set the settings that they have parts for, in their own layer: a
//! later layer can still set one part, and what a URL does not state (a password) can be set beside
//! it. Stated twice in one layer, the URL counts. `amqp.tls` implies the port 5671 where no layer
//! says anything about the port.
//!
//! # Older names
//!
//! | older name | in | is now |
//! |---|---|---|
//! | `DB_HOST`, `DB_NAME`, `DB_USER`, `DB_PASS` | environment | `database.host`, `.name`, `.username`, `.password` |
//! | `RABBITMQ_HOSTNAME` | environment, file | `amqp.host`; `host:port` and a URL are understood too |
//! | `RABBITMQ_LOCAL_QUEUE_NAME` | environment, file | `tasks.queues`, with this one queue |
//! | `RABBITMQ_PREFETCH_COUNT` | environment, file | `tasks.prefetch` |
//! | `EVENTS_TO_OMIT` | environment, file | `tasks.omit` |
//!
//! In one layer the newer name wins; an empty variable with an older name counts as none.
//! `DB_PASS_FILE` names a file that holds the password.
//!
//! # Errors
//!
//! Wrong settings come all at once ([`ConfigErrors`]), each with the file or variable, the setting,
//! what was found and what is allowed; for one that does not exist, the nearest that does. No error
//! shows a secret, nor anything that was read by way of `…_FILE` or out of a URL.

mod environment;
mod file;
mod hash;
mod host;
mod kind;
mod layers;
mod older;
mod origin;
mod problem;
mod schema;
mod secret;
mod sections;
mod settings;
mod show;
mod spans;
mod uri;
mod values;

pub use host::HostPattern;
pub use layers::Layers;
pub use origin::{Origin, Origins};
pub use problem::{ConfigErrors, Fault, Problem};
pub use secret::Secret;
pub use sections::aggregator::{AggregatorConfig, ClientToken, WhenFull};
pub use sections::amqp::AmqpConfig;
pub use sections::database::DatabaseConfig;
pub use sections::gateway::{Anonymous, GatewayConfig, Route, User};
pub use sections::ingest::IngestConfig;
pub use sections::log::{LogConfig, LogFormat};
pub use sections::mom::MomConfig;
pub use sections::ops::{AGGREGATOR_OPS, GATEWAY_OPS, MOM_OPS, OpsConfig, WORKER_OPS};
pub use sections::tasks::TasksConfig;
pub use sections::worker::{Role, WorkerConfig};
pub use settings::{Loaded, Settings};
pub use show::Row;
pub use uri::{Uri, UrlError};
