//! For those who write the servers behind the aggregator: what clients send to a channel is done by
//! one of its servers, and RabbitMQ keeps it until then.
//!
//! ```no_run
//! # async fn f() -> Result<(), platziverse_kit::KitError> {
//! use platziverse_kit::{Answer, Options, Server, Work};
//!
//! let server = Server::connect(Options::new("amqp://guest:guest@127.0.0.1:5672/")?).await?;
//! server
//!     .serve("chat", async |work: Work| {
//!         let asked: serde_json::Value = work.json()?;
//!         Answer::json(&serde_json::json!({ "you said": asked }))
//!     })
//!     .await
//! # }
//! ```

mod book;
mod channels;
mod error;
mod job;
mod options;
mod sender;
mod server;
mod work;

pub use error::KitError;
pub use options::Options;
pub use platziverse_broker::aggregator::Kind;
pub use sender::Sender;
pub use server::Server;
pub use work::{Answer, Work};
