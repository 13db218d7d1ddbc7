//! `platziverse topology`: what exists in RabbitMQ once a service has started.

use clap::Args as ClapArgs;
use platziverse_broker::topology::Topology;

use crate::output;
use crate::settings::Context;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let in_force = context.load()?;
    let settings = in_force.settings();
    let topology = Topology::for_ingest(&settings.ingest, &settings.gateway.routes)
        .and(Topology::for_tasks(&settings.tasks, &settings.ingest));
    if args.json { output::print_json(&topology) } else { output::print(&topology.to_string()) }
}
