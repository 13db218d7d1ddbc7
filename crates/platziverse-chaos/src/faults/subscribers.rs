//! Subscribers that are too slow for what they have subscribed to. Each must miss something or be
//! evicted, since nothing may grow for them without end.

use std::net::SocketAddr;
use std::time::Duration;

use platziverse_testkit::{Client, Options, Proxy, QoS, RawClient, Toxic, Version};
use tokio::task::JoinHandle;

use super::Fault;
use crate::crowd::{Habit, Subscriber};
use crate::noise::{self, Noise, Volume};
use crate::stage::Stage;

/// Of each kind.
const COUNT: usize = 4;
/// For one that reads nothing: more than sockets hold, some MB, is to be had in seconds.
const LARGE: Volume = Volume { bytes: 16 << 10, rate: 200 };
/// For those whose window fills up.
const SMALL: Volume = Volume { bytes: 64, rate: 400 };
/// More messages than wait for one subscriber (`gateway.outbound_queue`) and are on the way to it.
const ENOUGH: u64 = 2_500;
/// Bytes a second of a subscriber that reads slowly.
const SLOW: u64 = 2 << 10;
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may take until there is enough, other faults being healed.
const LONG: Duration = Duration::from_secs(60);
/// How long an eviction may take to be seen.
const SEEN: Duration = Duration::from_secs(15);
const DISCONNECT: u8 = 0xE0;
const QUOTA_EXCEEDED: u8 = 0x97;

pub(super) async fn begin(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    for number in 0..COUNT {
        let gateway = number % stage.gateways.len();
        let (address, process) = (stage.gateways[gateway].mqtt(), stage.gateways[gateway].pid());
        let habit = match fault {
            Fault::SlowSubscriber => {
                let (proxy, task) = slow(address).await?;
                stage.crowd.proxies.push(proxy);
                Habit::Reads(task)
            }
            Fault::NeverAcking => Habit::Reads(never_acking(subscribed(address, 1).await)),
            _ => Habit::Deaf(subscribed(address, 0).await),
        };
        stage.crowd.subscribers.push(Subscriber { gateway, process, habit });
    }
    let gateways = stage.gateways.iter().map(|gateway| gateway.mqtt()).collect();
    let volume = if fault == Fault::StoppedReader { LARGE } else { SMALL };
    stage.crowd.noise = Some(Noise::start(gateways, volume));
    Ok(())
}

pub(super) async fn end(fault: Fault, stage: &mut Stage) -> Result<(), String> {
    let judged = match fault {
        Fault::StoppedReader => miss(stage).await,
        Fault::SlowSubscriber => are_evicted(stage).await,
        _ => are_told(stage).await,
    };
    stage.crowd.silence();
    stage.crowd.proxies.clear();
    judged
}

/// A subscriber of the noise that has not read anything after its SUBACK.
async fn subscribed(gateway: SocketAddr, qos: u8) -> RawClient {
    let id = format!("raw-{:08x}", fastrand::u32(..));
    let mut client = RawClient::connect(gateway, Version::V5, &id, 0).await;
    client.send(&RawClient::subscribe_packet(Version::V5, 1, noise::TOPIC, qos)).await;
    client.packet().await;
    client
}

#[expect(clippy::disallowed_methods, reason = "the crowd's drop ends the task")]
async fn slow(gateway: SocketAddr) -> Result<(Proxy, JoinHandle<Option<u8>>), String> {
    let proxy = Proxy::start(gateway).await;
    let options = Options::new(proxy.address(), Version::V5);
    let client =
        Client::try_connect(options, CONNECT).await.map_err(|closed| closed.to_string())?;
    client.try_subscribe(noise::TOPIC, QoS::AtLeastOnce, CONNECT).await?;
    proxy.set(Toxic::Bandwidth(SLOW));
    let task = tokio::spawn(async move {
        loop {
            if let Some(closed) = client.is_closed() {
                return closed.code;
            }
            client.next_within(Duration::from_secs(1)).await;
        }
    });
    Ok((proxy, task))
}

#[expect(clippy::disallowed_methods, reason = "the crowd's drop ends the task")]
fn never_acking(mut client: RawClient) -> JoinHandle<Option<u8>> {
    tokio::spawn(async move {
        while let Ok((kind, body)) = client.packet_untimed().await {
            if kind == DISCONNECT {
                return body.first().copied();
            }
        }
        None
    })
}

/// Whether the gateway that let it in has gone, and its connection with it.
fn is_gone(stage: &Stage, subscriber: &Subscriber) -> bool {
    stage.gateways[subscriber.gateway].pid() != subscriber.process
}

/// At QoS 0 nothing ends: the gateway drops what has no room, and counts it.
async fn miss(stage: &mut Stage) -> Result<(), String> {
    stage
        .until("those that read nothing miss something", LONG, async |stage| {
            for subscriber in &stage.crowd.subscribers {
                let gateway = &stage.gateways[subscriber.gateway];
                let missed = "platziverse_gateway_messages_missed_total";
                let missed = gateway.try_metrics().await?.try_get(missed)?;
                if missed == 0.0 && !is_gone(stage, subscriber) {
                    return Err(format!("{} says that nobody has missed anything", gateway.name()));
                }
            }
            Ok(())
        })
        .await
}

/// What is left over for it once there was enough is that its connection has ended: what it is told
/// would come after all that it has not read.
async fn are_evicted(stage: &mut Stage) -> Result<(), String> {
    // What was published while a gateway had no live queue has not reached its subscribers.
    stage.ready().await?;
    let noise =
        |stage: &Stage, count: fn(&Noise) -> u64| stage.crowd.noise.as_ref().map_or(0, count);
    let enough = noise(stage, Noise::sent) + ENOUGH;
    stage
        .until("there was more than it can take", LONG, async |stage| {
            match noise(stage, Noise::acknowledged) {
                count if count >= enough => Ok(()),
                count => Err(format!("{count} of {enough} messages")),
            }
        })
        .await?;
    stage.crowd.proxies.iter().for_each(|proxy| proxy.set(Toxic::None));
    have_ended(stage, SEEN).await
}

/// One that reads, but never acknowledges, hears why it is evicted.
async fn are_told(stage: &mut Stage) -> Result<(), String> {
    have_ended(stage, LONG).await?;
    for subscriber in std::mem::take(&mut stage.crowd.subscribers) {
        let gone = is_gone(stage, &subscriber);
        let Habit::Reads(task) = subscriber.habit else { continue };
        let code = task.await.map_err(|error| error.to_string())?;
        if code != Some(QUOTA_EXCEEDED) && !gone {
            let wanted = format!("{:02X?} and not {QUOTA_EXCEEDED:02X}", code);
            return Err(format!("a subscriber that never acknowledges was told {wanted}"));
        }
    }
    Ok(())
}

async fn have_ended(stage: &mut Stage, within: Duration) -> Result<(), String> {
    stage
        .until("slow subscribers are evicted", within, async |stage| {
            let living = |subscriber: &&Subscriber| match &subscriber.habit {
                Habit::Reads(task) => !task.is_finished(),
                Habit::Deaf(_) => false,
            };
            match stage.crowd.subscribers.iter().filter(living).count() {
                0 => Ok(()),
                count => Err(format!("{count} are still connected")),
            }
        })
        .await
}
