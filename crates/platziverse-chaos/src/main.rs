//! `scripts/chaos`.

use std::process::ExitCode;

use clap::Parser;
use platziverse_chaos::args::Args;
use platziverse_chaos::faults::Fault;
use platziverse_chaos::theatre;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for fault in Fault::ALL {
            println!("{:<20} {}", fault.name(), fault.about());
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
