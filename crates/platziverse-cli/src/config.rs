//! `platziverse config`: the settings.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use platziverse_config::{Layers, Settings};
use serde_json::{Map, Value, json};

use crate::output::{self, Table};
use crate::settings::{Context, InForce};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print what is in force and where each value came from, secrets hidden
    Show {
        /// As JSON: {"amqp.host": {"value": …, "origin": …}, …}
        #[arg(long)]
        json: bool,
    },
    /// Check a file alone, without the environment; everything that is wrong is said at once
    Check {
        /// TOML or JSON, by its ending
        file: PathBuf,
    },
}

pub(crate) fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::Show { json: true } => output::print_json(&json(&context.load()?)),
        Command::Show { json: false } => output::print(&table(&context.load()?).render(None)),
        Command::Check { file } => check(file),
    }
}

fn table(in_force: &InForce) -> Table {
    let mut table = Table::new(["SETTING", "VALUE", "FROM"]);
    for row in in_force.rows() {
        let origin = row.origin.describe(&row.key);
        table.row([row.key, row.text, origin]);
    }
    table
}

fn json(in_force: &InForce) -> Value {
    let rows = in_force.rows().into_iter();
    let rows: Map<String, Value> = rows
        .map(|row| {
            let origin = row.origin.describe(&row.key);
            (row.key, json!({ "value": row.value, "origin": origin }))
        })
        .collect();
    Value::Object(rows)
}

fn check(file: PathBuf) -> anyhow::Result<()> {
    let shown = file.display().to_string();
    let dir = std::env::current_dir().context("finding the working directory")?;
    Settings::load(&Layers { file: Some(file), env: Vec::new(), dir })?;
    output::print(&format!("{shown} is valid.\n"))
}
