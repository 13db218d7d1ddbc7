//! `platziverse`: what an operator asks of the system.

use std::process::ExitCode;

mod args;
mod bench;
mod command;
mod config;
mod db;
mod dead;
mod discovery;
mod health;
mod mom;
mod output;
mod process;
mod progress;
mod settings;
mod task;
mod terminal;
mod topology;
mod user;

fn main() -> ExitCode {
    process::main()
}
