//! What passes between clients and servers: what is published for them, where clients are, and what
//! arrives of it.
//!
//! From clients to servers it goes through the exchange `INBOUND` to a queue of each channel; from
//! servers, and clients, to clients through `OUTBOUND` to a stream of each channel, which every
//! aggregator follows.

mod claim;
mod heard;
mod post;
mod probe;
mod sender;

/// Keys of `INBOUND` that no channel can have: what is in the stream of requests only.
const MARKER_KEY: &str = "platziverse.marker";
const WITHDRAWN_KEY: &str = "platziverse.withdrawn";

/// What follows the channel in keys of `OUTBOUND`.
const BROADCAST: &str = "broadcast";
const MULTICAST: &str = "multicast";
/// Before the id of a client.
const ONE_CLIENT: &str = "client.";

/// The property `type`; the last of a key, too, if it is a marker's.
const MARKER: &str = "marker";
const PROBE: &str = "probe";
const PUBLISH: &str = "publish";
const REQUEST: &str = "request";
const TAKEOVER: &str = "takeover";
const WITHDRAWN: &str = "withdrawn";

/// Headers. On the way to servers, who sends it:
const CLIENT: &str = "client";
const SESSION: &str = "session";
/// On the way to clients:
const FROM: &str = "from";
/// For whom it is, a comma between two. A stream keeps no header that is an array.
const CLIENTS_NAMED: &str = "clients";
const SEPARATOR: char = ',';
/// Until when a reply is waited for, in milliseconds since 1970:
const DEADLINE: &str = "deadline";
/// Why a request failed:
const ERROR: &str = "error";

const JSON: &str = "application/json";

pub use claim::{Claim, ClaimId, ClaimState};
pub use heard::{Inbound, Outbound, Presence, Sent, Target};
pub use post::{Kind, Post, Request, To, client_key};
pub use sender::{Handed, Sender, SenderSettings};

pub use crate::post::PostError;
