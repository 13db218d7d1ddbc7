//! The worker's process.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use platziverse_service::About;

fn main() -> ExitCode {
    let about = About {
        name: "worker",
        description: "Persists what agents report: from RabbitMQ into PostgreSQL, each record once",
        ops_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9102)),
    };
    platziverse_service::main(about, platziverse_worker::run)
}
