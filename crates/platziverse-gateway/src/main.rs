//! The gateway's process.

use std::process::ExitCode;

use platziverse_config::GATEWAY_OPS;
use platziverse_service::About;

fn main() -> ExitCode {
    let about = About {
        name: "gateway",
        description: "Accepts agents and devices over MQTT 3.1.1 and 5, and forwards what they publish into RabbitMQ",
        ops_listen: GATEWAY_OPS,
    };
    platziverse_service::main(about, platziverse_gateway::run)
}
