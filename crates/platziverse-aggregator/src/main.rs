//! The process of an aggregator.

use std::process::ExitCode;

use platziverse_config::AGGREGATOR_OPS;
use platziverse_service::About;

fn main() -> ExitCode {
    let about = About {
        name: "aggregator",
        description: "One WebSocket between a client and every service behind the broker",
        ops_listen: AGGREGATOR_OPS,
    };
    platziverse_service::main(about, platziverse_aggregator::run)
}
