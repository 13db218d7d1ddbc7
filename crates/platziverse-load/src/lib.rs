//! MQTT load, for measuring what a server takes.
//!
//! Many clients publish at QoS 1, in a closed loop (each keeps so many publishes in flight) or an
//! open one (all together publish at a rate, whatever the answers do). Latencies of the open loop
//! count from the moment at which a message was to be sent, so that a server which stalls does not
//! hide how long the messages waited that could not even be sent ("coordinated omission").
//!
//! Two more kinds of load: one message to many subscribers ([`fan_out()`]), and connections that do
//! nothing but stay ([`Idle`]).
//!
//! The clients are made for little more than this, so that they take little of the machine which
//! they measure: MQTT 3.1.1, one write for all that is due, one read for all answers.

mod client;
mod connecting;
mod fan_out;
mod idle;
mod latency;
mod message;
mod pacer;
mod plan;
mod report;
mod run;
mod socket;
mod telling;
mod timeline;
mod window;
mod wire;

pub use connecting::LoadError;
pub use fan_out::{FanOut, fan_out};
pub use idle::Idle;
pub use latency::{Latency, Recorder};
pub use message::Shape;
pub use plan::{IN_FLIGHT_MAX, Login, Pace, Plan, Server};
pub use report::{FanOutReport, Progress, Report};
pub use run::run;
