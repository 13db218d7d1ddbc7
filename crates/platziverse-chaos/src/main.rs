//! `scripts/chaos`.

use std::process::ExitCode;

use clap::Parser;
use platziverse_chaos::args::Args;
use platziverse_chaos::faults::Fault;
use platziverse_chaos::{schedule, theatre};

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for fault in Fault::ALL {
            println!("{:<20} {}", fault.name(), fault.about());
        }
        return ExitCode::SUCCESS;
    }
    if args.plan {
        for round in schedule::rounds(&args.wish(args.seed())) {
            println!("{}", schedule::names(&round));
        }
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(theatre::run(args)),
        Err(error) => {
            eprintln!("chaos: the runtime cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
