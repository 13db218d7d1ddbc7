//! MQTT clients that misbehave.

use std::time::Duration;

use platziverse_testkit::{Message, Proxy, RawClient, Toxic, Version};

use super::{Fault, rows};
use crate::fleet::{Fleet, Order, Plan};
use crate::stage::Stage;

const STORM: Plan = Plan { agents: 2_000, rate: 500.0 };
const HALF_OPEN: Plan = Plan { agents: 10, rate: 20.0 };
/// So slow that each connection reports once: the next message would put right what was wrong.
const LATE: Plan = Plan { agents: 20, rate: 0.1 };
/// How often the connections of a storm break off.
const BREAKS: u64 = 3;
/// Clients that die in mid-packet.
const CUT_OFF: usize = 200;
/// How long a crowd may take to be let in, or to have its answers.
pub(super) const ANSWERS: Duration = Duration::from_secs(60);
/// Promise 3.
const PRESENCE: Duration = Duration::from_secs(15);
/// How long the end of a client whose keep-alive has run out may take to its row. It runs out one and
/// a half times 5 s after its last packet, which is less than the fault holds.
const KEEP_ALIVE_ENDED: Duration = Duration::from_secs(4);

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::Storm => storm(stage).await,
        Fault::HalfOpenClients => {
            through_proxies(stage, "half-open", HALF_OPEN).await;
            connected(stage, HALF_OPEN.agents, 1).await?;
            rows::are_present(stage, "half-open-%", HALF_OPEN.agents, PRESENCE).await?;
            stage.crowd.proxies.iter().for_each(|proxy| proxy.set(Toxic::HalfOpen));
            Ok(())
        }
        Fault::LateEnd => move_away(stage).await,
        Fault::MidPacket => mid_packet(stage).await,
        other => Err(format!("{other:?} is no fault of clients")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::Storm => disperse(stage, ANSWERS).await,
        Fault::HalfOpenClients => {
            let gone = rows::are_present(stage, "half-open-%", 0, KEEP_ALIVE_ENDED).await;
            stage.crowd.proxies.iter().for_each(|proxy| proxy.set(Toxic::None));
            gone.and(disperse(stage, ANSWERS).await)
        }
        Fault::LateEnd => late_ends_change_nothing(stage).await,
        _ => Ok(()),
    }
}

/// They all come at once, and again each time that their connections break off.
async fn storm(stage: &mut Stage) -> Result<(), String> {
    through_proxies(stage, "storm", STORM).await;
    for times in 1..=BREAKS {
        connected(stage, STORM.agents, times).await?;
        stage.pass(Duration::from_secs(1)).await;
        stage.crowd.proxies.iter().for_each(Proxy::reset);
    }
    connected(stage, STORM.agents, BREAKS + 1).await
}

async fn through_proxies(stage: &mut Stage, name: &str, plan: Plan) {
    let mut addresses = Vec::new();
    for gateway in &stage.gateways {
        let proxy = Proxy::start(gateway.mqtt()).await;
        addresses.push(proxy.address());
        stage.crowd.proxies.push(proxy);
    }
    stage.crowd.fleet = Some(Fleet::start(name, addresses, plan));
}

/// Waits until all agents of the crowd are connected, and each has been so `times` times at least.
pub(super) async fn connected(stage: &mut Stage, agents: usize, times: u64) -> Result<(), String> {
    stage
        .until("the crowd is connected", ANSWERS, async |stage| {
            let least = stage.crowd.fleet.as_ref().map_or(0, Fleet::connections);
            match stage.crowd.connected() {
                count if count >= agents && least >= times => Ok(()),
                count => Err(format!("{count} of {agents} are, each {least} of {times} times")),
            }
        })
        .await
}

/// The crowd gets its answers and leaves.
pub(super) async fn disperse(stage: &mut Stage, within: Duration) -> Result<(), String> {
    stage.crowd.order(Order::Settle);
    let settled = async |stage: &Stage| match stage.crowd.unsettled() {
        0 => Ok(()),
        count => Err(format!("{count} messages of the crowd have no answer")),
    };
    stage.until("the crowd has its answers", within, settled).await?;
    let broken = stage.crowd.disband().await;
    stage.unexpected.extend(broken);
    stage.crowd.proxies.clear();
    Ok(())
}

/// The ends of their old sessions wait until their old gateway reaches RabbitMQ again.
async fn move_away(stage: &mut Stage) -> Result<(), String> {
    let proxy = Proxy::start(stage.gateways[0].mqtt()).await;
    stage.crowd.fleet = Some(Fleet::start("late", vec![proxy.address()], LATE));
    stage.crowd.proxies.push(proxy);
    connected(stage, LATE.agents, 1).await?;
    rows::are_present(stage, "late-%", LATE.agents, PRESENCE).await?;
    stage.gateway_amqp[0].set(Toxic::Refuse);
    let proxy = &stage.crowd.proxies[0];
    proxy.retarget(stage.gateways[1].mqtt());
    proxy.reset();
    connected(stage, LATE.agents, 2).await?;
    stage.pass(Duration::from_secs(1)).await;
    Ok(())
}

async fn late_ends_change_nothing(stage: &mut Stage) -> Result<(), String> {
    let moved = rows::are_present(stage, "late-%", LATE.agents, PRESENCE).await;
    stage.gateway_amqp[0].set(Toxic::None);
    moved?;
    stage.ready().await?;
    stage.pass(Duration::from_secs(2)).await;
    // Looked at once: a row that heals by the next record was wrong all the same.
    match rows::present(stage, "late-%").await? {
        count if count == LATE.agents => {}
        count => stage.note(format!("after late ends {count} of {} are connected", LATE.agents)),
    }
    disperse(stage, ANSWERS).await
}

async fn mid_packet(stage: &mut Stage) -> Result<(), String> {
    let payload = Message::of("cut-off").json();
    let packet = RawClient::publish_packet(Version::V3, "agent/message", 1, payload.as_bytes());
    for number in 0..CUT_OFF {
        let gateway = stage.gateways[number % stage.gateways.len()].mqtt();
        let id = format!("cut-off-{number}");
        let mut client = RawClient::connect(gateway, Version::V3, &id, 60).await;
        let cut = fastrand::usize(1..packet.len());
        client.try_send(&packet[..cut]).await.map_err(|error| error.to_string())?;
        client.reset();
    }
    Ok(())
}
