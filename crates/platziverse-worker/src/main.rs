//! The worker's process.

use std::process::ExitCode;

use platziverse_config::WORKER_OPS;
use platziverse_service::About;

fn main() -> ExitCode {
    let about = About {
        name: "worker",
        description: "Persists what agents report, each record once, and handles events and commands",
        ops_listen: WORKER_OPS,
    };
    platziverse_service::main(about, platziverse_worker::run)
}
