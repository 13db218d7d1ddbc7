//! `platziverse topology`: what exists in RabbitMQ once a service has started.

use clap::Args as ClapArgs;
use platziverse_broker::topology::Topology;
use platziverse_config::{Route, Settings};
use platziverse_protocol::topic::TopicFilter;

use crate::output;
use crate::settings::Context;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let topology = of(context.load()?.settings())?;
    if args.json { output::print_json(&topology) } else { output::print(&topology.to_string()) }
}

fn of(settings: &Settings) -> anyhow::Result<Topology> {
    let routes: Vec<_> =
        settings.gateway.routes.iter().enumerate().map(route).collect::<anyhow::Result<_>>()?;
    Ok(Topology::for_ingest(&settings.ingest, &routes))
}

fn route((at, route): (usize, &Route)) -> anyhow::Result<(TopicFilter, String)> {
    let filter = TopicFilter::parse(&route.filter).map_err(|error| {
        anyhow::anyhow!("gateway.routes[{at}].filter: {:?} {error}", route.filter)
    })?;
    Ok((filter, route.queue.clone()))
}
