//! MQTT clients that misbehave.

use std::net::SocketAddr;
use std::time::Duration;

use platziverse_testkit::{
    Client, Message, Options, Process, Proxy, QoS, RawClient, Toxic, Version,
};

use super::Fault;
use crate::fleet::{Fleet, Order, Plan};
use crate::stage::Stage;

const STORM: Plan = Plan { agents: 2_000, rate: 500.0 };
const HALF_OPEN: Plan = Plan { agents: 10, rate: 20.0 };
/// So slow that each connection reports once: the next message would put right what was wrong.
const LATE: Plan = Plan { agents: 20, rate: 0.1 };
/// Subscribers of each kind.
const SUBSCRIBERS: usize = 5;
/// Bytes a second of a subscriber that reads slowly.
const SLOW: u64 = 2 << 10;
const TAKEOVERS: usize = 1_000;
const WANDERER: &str = "wanderer";
/// Clients that die in mid-packet.
const CUT_OFF: usize = 200;
const CONNECT: Duration = Duration::from_secs(10);
/// Promise 3, after a keep-alive of 5 s and its half.
const PRESENCE: Duration = Duration::from_secs(15);

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::Storm => storm(stage).await,
        Fault::HalfOpenClients => {
            through_proxies(stage, "half-open", HALF_OPEN).await;
            connected(stage, HALF_OPEN.agents).await?;
            stage.crowd.proxies.iter().for_each(|proxy| proxy.set(Toxic::HalfOpen));
            Ok(())
        }
        Fault::SlowSubscriber | Fault::NeverAcking | Fault::StoppedReader => {
            subscribers(fault, stage).await
        }
        Fault::Takeover => takeover(stage).await,
        Fault::LateEnd => move_away(stage).await,
        Fault::MidPacket => mid_packet(stage).await,
        other => Err(format!("{other:?} is no fault of clients")),
    }
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    match fault {
        Fault::Storm => disperse(stage).await,
        Fault::HalfOpenClients => {
            nobody_is_connected(stage, "half-open-%").await?;
            stage.crowd.proxies.iter().for_each(|proxy| proxy.set(Toxic::None));
            disperse(stage).await
        }
        Fault::Takeover => last_of_them_stays(stage).await,
        Fault::LateEnd => late_ends_change_nothing(stage).await,
        _ => {
            stage.crowd.raw.clear();
            stage.crowd.tasks.drain(..).for_each(|task| task.abort());
            stage.crowd.proxies.clear();
            Ok(())
        }
    }
}

/// They all come at once, and again each time that their connections break off.
async fn storm(stage: &mut Stage) -> Result<(), String> {
    through_proxies(stage, "storm", STORM).await;
    for _ in 0..3 {
        connected(stage, STORM.agents).await?;
        stage.pass(Duration::from_secs(1)).await;
        stage.crowd.proxies.iter().for_each(Proxy::reset);
    }
    connected(stage, STORM.agents).await
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

async fn connected(stage: &mut Stage, agents: usize) -> Result<(), String> {
    stage
        .until("the crowd is connected", Duration::from_secs(60), async |stage| {
            match stage.crowd.fleet.as_ref().map_or(0, Fleet::connected) {
                count if count >= agents => Ok(()),
                count => Err(format!("{count} of {agents} are")),
            }
        })
        .await
}

/// The crowd gets its answers and leaves.
pub(super) async fn disperse(stage: &mut Stage) -> Result<(), String> {
    if let Some(fleet) = &stage.crowd.fleet {
        fleet.order(Order::Settle);
    }
    let settled = async |stage: &Stage| match stage.crowd.fleet.as_ref().map_or(0, Fleet::unsettled)
    {
        0 => Ok(()),
        count => Err(format!("{count} messages of the crowd have no answer")),
    };
    stage.until("the crowd has its answers", Duration::from_secs(60), settled).await?;
    if let Some(fleet) = stage.crowd.fleet.take() {
        stage.crowd.ledgers.extend(fleet.ledgers());
        stage.unexpected.extend(fleet.finish().await);
    }
    stage.crowd.proxies.clear();
    Ok(())
}

/// The ends of their old sessions wait until their old gateway reaches RabbitMQ again.
async fn move_away(stage: &mut Stage) -> Result<(), String> {
    let proxy = Proxy::start(stage.gateways[0].mqtt()).await;
    stage.crowd.fleet = Some(Fleet::start("late", vec![proxy.address()], LATE));
    stage.crowd.proxies.push(proxy);
    connected(stage, LATE.agents).await?;
    are_present(stage).await?;
    stage.gateway_amqp[0].set(Toxic::Refuse);
    let proxy = &stage.crowd.proxies[0];
    proxy.retarget(stage.gateways[1].mqtt());
    proxy.reset();
    connected(stage, LATE.agents).await?;
    stage.pass(Duration::from_secs(1)).await;
    Ok(())
}

async fn late_ends_change_nothing(stage: &mut Stage) -> Result<(), String> {
    are_present(stage).await?;
    stage.gateway_amqp[0].set(Toxic::None);
    stage.ready().await?;
    stage.pass(Duration::from_secs(2)).await;
    // Looked at once: a row that heals by the next record was wrong all the same.
    match present(stage).await? {
        count if count == LATE.agents.to_string() => {}
        count => stage.note(format!("after late ends {count} of {} are connected", LATE.agents)),
    }
    disperse(stage).await
}

async fn are_present(stage: &mut Stage) -> Result<(), String> {
    let all = LATE.agents.to_string();
    stage
        .until("the agents that move are present", PRESENCE, async |stage| {
            let count = present(stage).await?;
            if count == all { Ok(()) } else { Err(format!("{count} are")) }
        })
        .await
}

async fn present(stage: &Stage) -> Result<String, String> {
    let question = "SELECT count(*) FROM agents WHERE connected AND uuid LIKE 'late-%'";
    let rows = stage.world.database().try_sql(question).await?;
    rows.into_iter().flatten().next().flatten().ok_or_else(|| "no count".to_owned())
}

async fn nobody_is_connected(stage: &mut Stage, like: &str) -> Result<(), String> {
    let question = format!("SELECT count(*) FROM agents WHERE connected AND uuid LIKE '{like}'");
    stage
        .until("agents whose network is gone are disconnected", PRESENCE, async |stage| {
            let rows = stage.world.database().try_sql(&question).await?;
            match rows.first().and_then(|row| row[0].as_deref()) {
                Some("0") => Ok(()),
                count => Err(format!("{count:?} are connected")),
            }
        })
        .await
}

async fn subscribers(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    for number in 0..SUBSCRIBERS {
        let gateway = stage.gateways[number % stage.gateways.len()].mqtt();
        match fault {
            Fault::SlowSubscriber => slow(stage, gateway).await?,
            Fault::NeverAcking => never_acking(stage, gateway).await,
            _ => {
                let client = subscribed(gateway).await;
                stage.crowd.raw.push(client);
            }
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the crowd's drop ends the task")]
async fn slow(stage: &mut Stage, gateway: SocketAddr) -> Result<(), String> {
    let proxy = Proxy::start(gateway).await;
    let options = Options::new(proxy.address(), Version::V5);
    let client =
        Client::try_connect(options, CONNECT).await.map_err(|closed| closed.to_string())?;
    let subscribed = client.try_subscribe("agent/#", QoS::AtLeastOnce, CONNECT).await;
    subscribed.map_err(|why| why.to_string())?;
    proxy.set(Toxic::Bandwidth(SLOW));
    stage.crowd.proxies.push(proxy);
    stage.crowd.tasks.push(tokio::spawn(async move {
        while client.is_closed().is_none() {
            client.next_within(Duration::from_secs(1)).await;
        }
    }));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the crowd's drop ends the task")]
async fn never_acking(stage: &mut Stage, gateway: SocketAddr) {
    let mut client = subscribed(gateway).await;
    stage.crowd.tasks.push(tokio::spawn(async move {
        client.receive_without_acks(Duration::from_secs(600)).await;
    }));
}

/// A subscriber of everything at QoS 1 that has not read anything after its SUBACK.
async fn subscribed(gateway: SocketAddr) -> RawClient {
    let id = format!("raw-{:08x}", fastrand::u32(..));
    let mut client = RawClient::connect(gateway, Version::V5, &id, 0).await;
    client.send(&RawClient::subscribe_packet(Version::V5, 1, "agent/#", 1)).await;
    client
}

async fn takeover(stage: &mut Stage) -> Result<(), String> {
    let gateways: Vec<_> = stage.gateways.iter().map(Process::mqtt).collect();
    for number in 0..TAKEOVERS {
        let options = Options::new(gateways[number % gateways.len()], Version::V5).id(WANDERER);
        let client = Client::try_connect(options, CONNECT).await;
        let client = client.map_err(|closed| format!("takeover {number}: {closed}"))?;
        // Not awaited: the next connection may come before the answer.
        let message = Message::of(WANDERER).json();
        drop(client.send("agent/message", QoS::AtLeastOnce, message).await);
        stage.crowd.newest = Some(client);
        if number % 100 == 0 {
            stage.look().await;
        }
    }
    Ok(())
}

async fn last_of_them_stays(stage: &mut Stage) -> Result<(), String> {
    let row = "SELECT connected FROM agents WHERE uuid = 'wanderer'";
    for (wanted, what) in [("t", "the last connection is present"), ("f", "it has left")] {
        stage
            .until(what, PRESENCE, async |stage| {
                let rows = stage.world.database().try_sql(row).await?;
                match rows.first().and_then(|row| row[0].as_deref()) {
                    Some(value) if value == wanted => Ok(()),
                    value => Err(format!("connected is {value:?}")),
                }
            })
            .await?;
        if let Some(client) = stage.crowd.newest.take() {
            if let Some(closed) = client.is_closed() {
                return Err(format!("the last of {TAKEOVERS} connections was closed: {closed}"));
            }
            client.disconnect().await;
        }
    }
    Ok(())
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
