//! The gateway's process.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use platziverse_service::About;

fn main() -> ExitCode {
    let about = About {
        name: "gateway",
        description: "Accepts agents and devices over MQTT 3.1.1 and 5, and forwards what they publish into RabbitMQ",
        ops_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9101)),
    };
    platziverse_service::main(about, platziverse_gateway::run)
}
