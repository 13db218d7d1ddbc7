//! `platziverse topology`: what exists in RabbitMQ once all services have started.

use clap::Args as ClapArgs;
use platziverse_broker::topology::{StreamLimits, Topology};

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
    let (limits, aggregator) = (&settings.ingest, &settings.aggregator);
    let streams = StreamLimits::from(aggregator);
    let topology = Topology::for_ingest(limits, &settings.gateway.routes)
        .and(Topology::for_tasks(&settings.tasks, limits))
        .and(Topology::for_mom(limits))
        .and(Topology::for_aggregator(&aggregator.channels, limits, streams));
    if args.json { output::print_json(&topology) } else { output::print(&topology.to_string()) }
}
