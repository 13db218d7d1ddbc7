//! Topics and queues for Rust applications.
//!
//! A topic copies a message to each of its subscribers but the publisher; a queue gives a message
//! to one of its subscribers. A publish has ended well when the message is stored safely; a message
//! that is consumed is gone only when it is acknowledged.
//!
//! ```no_run
//! # async fn example() -> Result<(), platziverse_client::Error> {
//! use futures_util::StreamExt as _;
//! use platziverse_client::{Client, Options};
//!
//! let client = Client::builder("http://127.0.0.1:50052").key("pk_…").build()?;
//! let jobs = client.queue("jobs");
//! jobs.create(&Options::default()).await?;
//! jobs.publish("sweep the floor").await?;
//!
//! let mut deliveries = jobs.consume(10);
//! while let Some(delivery) = deliveries.next().await {
//!     let delivery = delivery?;
//!     println!("{}", String::from_utf8_lossy(&delivery.message.body));
//!     delivery.ack()?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A client connects when it is first used, and again whenever it must: a call that no server has
//! answered, or that one cannot do now, is made again, with growing waits, until
//! [`Builder::retry_for`] is over. So a publish whose answer was lost may arrive twice, unless it has
//! an idempotency key.

mod attempts;
mod builder;
mod client;
mod consumer;
mod destination;
mod error;
#[cfg(test)]
mod fake;
mod lease;
mod message;
mod publishing;
mod time;

pub use builder::Builder;
pub use client::{Client, Page, User, Which};
pub use consumer::{Consumer, Delivery};
pub use destination::{Destination, Info, Kind, Options, Shown};
pub use error::{Code, Error};
pub use lease::Lent;
pub use message::{Message, NewMessage, Published};
