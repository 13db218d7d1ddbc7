//! The command line.

use std::path::PathBuf;

use clap::Parser;
use clap::builder::RangedU64ValueParser;

use crate::scenario::Scenario;

/// Measures Platziverse, and beside it RabbitMQ's plugins, Mosquitto and pika, on this machine.
///
/// Figures are medians of several rounds, in which the subjects take turns. The exit code is 0 if
/// every scenario could be measured, whether or not its goal was reached, 1 otherwise.
#[derive(Clone, Debug, Parser)]
#[command(name = "scripts/bench", version)]
pub struct Args {
    /// Only this scenario; may be given several times [default: all but `full`]
    #[arg(long, value_name = "NAME", value_parser = scenario)]
    pub scenario: Vec<Scenario>,

    /// How often each is played
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100))]
    pub rounds: usize,

    /// How long a load counts
    #[arg(long, default_value = "10s")]
    pub time: humantime::Duration,

    /// How long it lasts before it counts
    #[arg(long, default_value = "3s")]
    pub warm_up: humantime::Duration,

    /// Connections that publish
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub clients: usize,

    /// Connections of the scenario `idle`
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=25_000))]
    pub idle: usize,

    /// Messages of a backlog
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub backlog: u64,

    /// Tasks of the scenario `tasks`
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(10_000..=500_000))]
    pub tasks: u64,

    /// Metrics that are in the tables already in the scenario `full`, in steps of 5,000,000
    #[arg(long, value_name = "N", default_value_t = 100_000_000, value_parser = clap::value_parser!(u64).range(5_000_000..))]
    pub filled: u64,

    /// Write a plot of the throughput to this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// Print JSON instead of the table
    #[arg(long)]
    pub json: bool,

    /// Print the scenarios, and do nothing
    #[arg(long)]
    pub list: bool,
}

impl Args {
    /// What is to be played.
    pub fn scenarios(&self) -> Vec<Scenario> {
        match self.scenario.is_empty() {
            true => Scenario::ALL.iter().copied().filter(|one| !one.is_heavy()).collect(),
            false => self.scenario.clone(),
        }
    }
}

fn scenario(name: &str) -> Result<Scenario, String> {
    Scenario::named(name).ok_or_else(|| format!("there is no scenario {name}; --list prints them"))
}
