//! The older system's wire, for clients that were made for it: form posts that are answered in plain
//! text, and gRPC services without a package. A message is text there.

mod forms;
mod number;
mod python;
mod rpc;
mod verbs;

pub use self::forms::router;
pub(crate) use self::rpc::{SERVICES, services};
