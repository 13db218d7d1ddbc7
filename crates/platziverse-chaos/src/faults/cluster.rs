//! A RabbitMQ cluster of three. The proxies are the balancer in front of it.

use std::net::SocketAddr;
use std::time::Duration;

use super::Fault;
use crate::stage::Stage;

const NODES: [&str; 3] = ["rabbitmq-1", "rabbitmq-2", "rabbitmq-3"];
/// How long a node stays away.
const AWAY: Duration = Duration::from_secs(5);
/// How long its return may take until the next one goes.
const BACK: Duration = Duration::from_secs(5);
/// How long the balancer needs to notice.
const NOTICE: Duration = Duration::from_secs(2);

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::ClusterKill => {
            for node in 0..NODES.len() {
                kill(stage, node).await?;
            }
            Ok(())
        }
        Fault::ClusterPartition => {
            stage.servers.try_run("partition", NODES[0]).await?;
            stage.pass(NOTICE).await;
            lead_to(stage, 1)
        }
        other => Err(format!("{other:?} is no fault of a cluster")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::ClusterPartition => {
            // Two of three are enough.
            let goes_on = stage.acknowledges().await;
            stage.servers.try_run("heal", NODES[0]).await?;
            goes_on
        }
        _ => Ok(()),
    }
}

/// The services' own node goes, and comes back.
async fn kill(stage: &mut Stage, node: usize) -> Result<(), String> {
    lead_to(stage, node)?;
    stage.acknowledges().await?;
    stage.servers.try_run("kill", NODES[node]).await?;
    stage.pass(NOTICE).await;
    lead_to(stage, (node + 1) % NODES.len())?;
    stage.pass(AWAY).await;
    // Two of three are enough: agents are acknowledged while it is away.
    stage.acknowledges().await?;
    stage.servers.try_run("start", NODES[node]).await?;
    stage.pass(BACK).await;
    Ok(())
}

/// Leads every connection to a node from now on.
fn lead_to(stage: &Stage, node: usize) -> Result<(), String> {
    let url = stage.servers.url(&format!("AMQP_URL_{}", node + 1));
    let address = address(&url).ok_or("an AMQP URL without an address")?;
    for proxy in stage.to_rabbitmq() {
        proxy.retarget(address);
        proxy.cut();
    }
    Ok(())
}

fn address(url: &str) -> Option<SocketAddr> {
    let (_, rest) = url.rsplit_once('@')?;
    rest.split('/').next()?.parse().ok()
}
