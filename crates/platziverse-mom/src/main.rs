//! The process of a server of topics and queues.

use std::process::ExitCode;

use platziverse_config::MOM_OPS;
use platziverse_service::About;

fn main() -> ExitCode {
    let about = About {
        name: "mom",
        description: "Topics and queues for applications, over HTTP and gRPC",
        ops_listen: MOM_OPS,
    };
    platziverse_service::main(about, platziverse_mom::run)
}
