//! `platziverse config`: the settings.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use platziverse_config::{ConfigErrors, Layers, Settings};
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
        /// As JSON: {"problems": [{"key": …, "origin": …, "problem": …}, …]}
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: Command, context: &Context) -> anyhow::Result<()> {
    match command {
        Command::Show { json } => show(&context.load()?, json),
        Command::Check { file, json } => check(file, json),
    }
}

fn show(in_force: &InForce, json: bool) -> anyhow::Result<()> {
    if let Some(notice) = in_force.passed_over() {
        output::complain(&notice);
    }
    if json {
        output::print_json(&as_json(in_force))
    } else {
        output::print(&table(in_force).render(None))
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

fn as_json(in_force: &InForce) -> Value {
    let rows = in_force.rows().into_iter();
    let rows: Map<String, Value> = rows
        .map(|row| {
            let origin = row.origin.describe(&row.key);
            (row.key, json!({ "value": row.value, "origin": origin }))
        })
        .collect();
    Value::Object(rows)
}

fn check(file: PathBuf, json: bool) -> anyhow::Result<()> {
    let shown = file.display().to_string();
    let dir = std::env::current_dir().context("finding the working directory")?;
    let loaded = Settings::load(&Layers { file: Some(file), dir, ..Layers::default() });
    if json {
        output::print_json(&json!({ "problems": problems(loaded.as_ref().err()) }))?;
        return loaded.map(|_| ()).map_err(|_| anyhow!("{shown} is not valid"));
    }
    loaded?;
    output::print(&format!("{shown} is valid.\n"))
}

fn problems(errors: Option<&ConfigErrors>) -> Vec<Value> {
    let all = errors.map(ConfigErrors::problems).unwrap_or_default().iter();
    all.map(|problem| {
        let origin = problem.origin.as_ref().map(|origin| origin.describe(&problem.key));
        json!({ "key": problem.key, "origin": origin, "problem": problem.fault.to_string() })
    })
    .collect()
}
