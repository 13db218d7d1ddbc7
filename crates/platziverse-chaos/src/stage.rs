//! Everything that runs in one round: services, the proxies between them, agents, listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use platziverse_testkit::{Held, Proxy, Servers, Toxic, World};
use tokio::time::{Instant, sleep};

use crate::ballast::Ballast;
use crate::crowd::Crowd;
use crate::ear::Ear;
use crate::faults::Overload;
use crate::fleet::{Fleet, Order, Plan};
use crate::service::Service;
use crate::watch::Watch;

/// How often what runs is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long a service may take to be ready when nothing is in its way.
const READY: Duration = Duration::from_secs(60);

/// A setting of a service, as its environment has it.
pub type Setting = (&'static str, String);

/// What a round starts with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Gateways.
    pub gateways: usize,
    /// Workers.
    pub workers: usize,
    /// The agents.
    pub plan: Plan,
    /// Settings of all services beside their addresses.
    pub settings: Vec<Setting>,
    /// Whether RabbitMQ or PostgreSQL will be away for a while.
    pub outage: bool,
    /// Whether the round has one fault: nothing else blurs what it must show.
    pub alone: bool,
}

/// What runs.
#[derive(Debug)]
pub struct Stage {
    /// What should not have happened, so far.
    pub unexpected: Vec<String>,
    /// Reasons of dead letters that this round makes on purpose.
    pub dead_expected: Vec<&'static str>,
    /// Books and memory.
    pub watch: Watch,
    /// The agents.
    pub fleet: Fleet,
    /// A listener on each gateway.
    pub ears: Vec<Ear>,
    /// The gateways.
    pub gateways: Vec<Service>,
    /// The workers.
    pub workers: Vec<Service>,
    /// Between each gateway and RabbitMQ.
    pub gateway_amqp: Vec<Proxy>,
    /// Between workers and RabbitMQ.
    pub worker_amqp: Proxy,
    /// Between workers and PostgreSQL.
    pub postgres: Proxy,
    /// A transaction of a stranger's that holds a lock.
    pub held: Option<Held>,
    /// What fills PostgreSQL's disk.
    pub ballast: Option<Ballast>,
    /// Clients beside the agents.
    pub crowd: Crowd,
    /// What was measured when an overload began.
    pub overload: Option<Overload>,
    /// The vhost and the database.
    pub world: World,
    /// The servers.
    pub servers: Arc<Servers>,
    /// What the round started with.
    pub setup: Setup,
}

impl Stage {
    /// Starts everything, and waits until it works.
    pub async fn start(name: &str, servers: Arc<Servers>, setup: Setup) -> Result<Self, String> {
        let world = World::on(Arc::clone(&servers)).await;
        let amqp = world.amqp_address();
        let worker_amqp = Proxy::start(amqp).await;
        let postgres = Proxy::start(world.database().address()).await;
        let mut workers = Vec::new();
        for _ in 0..setup.workers {
            let own = vec![
                ("PLATZIVERSE_AMQP__URL", world.amqp_url_at(worker_amqp.address())),
                ("PLATZIVERSE_DATABASE__URL", world.database().url_at(postgres.address())),
            ];
            let process = world.try_worker_with(&together(&own, &setup.settings)).await?;
            workers.push(Service::of(process, setup.outage));
        }
        let (mut gateways, mut gateway_amqp) = (Vec::new(), Vec::new());
        for _ in 0..setup.gateways {
            let proxy = Proxy::start(amqp).await;
            let own = vec![("PLATZIVERSE_AMQP__URL", world.amqp_url_at(proxy.address()))];
            gateway_amqp.push(proxy);
            let process = world.try_gateway_with(&together(&own, &setup.settings)).await?;
            gateways.push(Service::of(process, setup.outage));
        }
        let addresses: Vec<SocketAddr> = gateways.iter().map(|one| one.mqtt()).collect();
        let stage = Self {
            unexpected: Vec::new(),
            dead_expected: Vec::new(),
            watch: Watch::default(),
            fleet: Fleet::start(name, addresses.clone(), setup.plan),
            ears: addresses.into_iter().map(Ear::at).collect(),
            gateways,
            workers,
            gateway_amqp,
            worker_amqp,
            postgres,
            held: None,
            ballast: None,
            crowd: Crowd::default(),
            overload: None,
            world,
            servers,
            setup,
        };
        Ok(stage)
    }

    /// Lets time pass, and looks meanwhile.
    pub async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        loop {
            self.look().await;
            let rest = end.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return;
            }
            sleep(rest.min(LOOK)).await;
        }
    }

    /// Looks at every service once.
    pub async fn look(&mut self) {
        for gateway in &mut self.gateways {
            gateway.look();
            self.watch.gateway(gateway).await;
        }
        for worker in &mut self.workers {
            worker.look();
            self.watch.worker(worker).await;
        }
    }

    /// Waits until a condition holds, and looks meanwhile.
    pub async fn until(
        &mut self,
        what: &str,
        within: Duration,
        condition: impl AsyncFn(&Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = Instant::now() + within;
        loop {
            self.look().await;
            match condition(self).await {
                Ok(()) => return Ok(()),
                Err(why) if Instant::now() >= end => {
                    return Err(format!("not within {within:?}: {what}: {why}"));
                }
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    /// Waits until every service says that it is ready.
    pub async fn ready(&mut self) -> Result<(), String> {
        self.until("every service is ready", READY, async |stage| {
            for process in stage.gateways.iter().chain(&stage.workers) {
                match process.try_readyz().await {
                    Ok((200, _)) => {}
                    Ok((_, body)) => return Err(format!("{}: {body}", process.name())),
                    Err(error) => return Err(format!("{}: {error}", process.name())),
                }
            }
            Ok(())
        })
        .await
    }

    /// Waits until every agent has been told that something newer than now is kept.
    pub async fn acknowledges(&mut self) -> Result<(), String> {
        let before = self.fleet.acknowledged();
        self.until("every agent is acknowledged something", READY, async |stage| {
            let now = stage.fleet.acknowledged();
            let behind = now.iter().zip(&before).filter(|(now, before)| now <= before).count();
            if behind == 0 { Ok(()) } else { Err(format!("{behind} agents are not")) }
        })
        .await
    }

    /// Waits until nothing is under way any more: every message is settled, the workers have emptied
    /// the queue, and no service holds anything.
    pub async fn settle(&mut self, within: Duration) -> Result<(), String> {
        self.until("every message has its answer", within, async |stage| {
            match stage.fleet.unsettled() + stage.crowd.unsettled() {
                0 => Ok(()),
                count => Err(format!("{count} have none")),
            }
        })
        .await?;
        self.until("the queue is empty and services are idle", within, async |stage| {
            stage.idle().await?;
            stage.queue_is_empty().await?;
            // What left the queue while it was looked at is in a worker's hands.
            stage.idle().await
        })
        .await
    }

    async fn idle(&self) -> Result<(), String> {
        for service in self.gateways.iter().chain(&self.workers) {
            let held = service.books().await?.in_flight;
            if held != 0.0 {
                return Err(format!("{} has {held} in flight", service.name()));
            }
        }
        Ok(())
    }

    /// Asks the node itself: what the management API says is seconds old.
    async fn queue_is_empty(&self) -> Result<(), String> {
        let vhost = self.world.vhost();
        let question = ["-q", "list_queues", "-p", vhost, "--no-table-headers", "name", "messages"];
        let answer = self.servers.ctl(&question).await?;
        let ingest = answer.lines().find_map(|line| {
            let (name, messages) = line.split_once('\t')?;
            (name == "platziverse.ingest").then(|| messages.trim().to_owned())
        });
        match ingest.as_deref() {
            Some("0") => Ok(()),
            Some(count) => Err(format!("the queue has {count} messages")),
            None => Err("there is no queue platziverse.ingest".to_owned()),
        }
    }

    /// Ends every fault that may still hold, and lets things come to rest.
    pub async fn mend(&mut self, within: Duration) -> Result<(), String> {
        for proxy in self.to_rabbitmq().chain([&self.postgres]) {
            proxy.set(Toxic::None);
        }
        (self.held, self.ballast) = (None, None);
        self.crowd.calm();
        self.servers.try_run("start", "all").await?;
        for service in self.gateways.iter_mut().chain(&mut self.workers) {
            service.start_again()?;
        }
        self.fleet.order(Order::Settle);
        self.settle(within).await
    }

    /// Every way from a service to RabbitMQ.
    pub fn to_rabbitmq(&self) -> impl Iterator<Item = &Proxy> {
        self.gateway_amqp.iter().chain([&self.worker_amqp])
    }

    /// Something that should not have happened.
    pub fn note(&mut self, words: impl Into<String>) {
        self.unexpected.push(words.into());
    }
}

fn together<'a>(own: &'a [(&'static str, String)], more: &'a [Setting]) -> Vec<(&'a str, &'a str)> {
    own.iter().chain(more).map(|(name, value)| (*name, value.as_str())).collect()
}
