//! `scripts/bench`.

use std::process::ExitCode;

use clap::Parser;
use platziverse_bench::args::Args;
use platziverse_bench::run;
use platziverse_bench::scenario::Scenario;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        for scenario in Scenario::ALL {
            println!("{:<12} {}", scenario.name(), scenario.about());
        }
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(run::run(args)),
        Err(error) => {
            eprintln!("bench: the runtime cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}
