//! The command line.

use clap::Parser;

use crate::schedule::{self, Round, Wish};

/// Agents, unless another number is wanted.
pub const AGENTS: usize = 40;

/// Injures a running Platziverse under load, and reconciles what clients were told with what is
/// stored.
///
/// Each fault alone, then rounds of random combinations. The exit code is 0 if nothing was lost,
/// doubled or unexpected in any round, 1 otherwise.
#[derive(Clone, Debug, Parser)]
#[command(name = "scripts/chaos", version)]
pub struct Args {
    /// Rounds of random combinations; with --fault, rounds of that fault [default: 20, and 1 with
    /// --fault]
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,

    /// Only this fault, or these at once if joined by +; may be given several times
    #[arg(long, value_name = "NAME[+NAME]", value_parser = schedule::named)]
    pub fault: Vec<Round>,

    /// One of each kind only, and one combination
    #[arg(long, conflicts_with = "fault")]
    pub short: bool,

    /// Where the random schedule begins: the same seed, the same schedule
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// Agents, each with a connection of its own
    #[arg(long, value_name = "N", default_value_t = AGENTS)]
    pub agents: usize,

    /// Messages a second, of all agents together
    #[arg(long, value_name = "N", default_value_t = 800.0)]
    pub rate: f64,

    /// Print the rounds as JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// Print the faults, and do nothing
    #[arg(long)]
    pub list: bool,

    /// Print the rounds that would be played, and do nothing
    #[arg(long)]
    pub plan: bool,
}

impl Args {
    /// What is wanted, where chance begins at `seed`.
    pub fn wish(&self, seed: u64) -> Wish {
        Wish { only: self.fault.clone(), rounds: self.rounds, short: self.short, seed }
    }

    /// The seed that was given, or one of chance.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| fastrand::u64(..1_000_000))
    }
}
