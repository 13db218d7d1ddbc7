//! Everything that runs in one round: services, the proxies between them, agents, listeners, and
//! who publishes tasks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{try_join_all, try_join4};
use platziverse_testkit::{Aggregator, Held, Mom, Proxy, Servers, Toxic, World};
use tokio::time::{Instant, sleep};

use crate::ballast::Ballast;
use crate::crowd::Crowd;
use crate::ear::Ear;
use crate::faults::Overload;
use crate::fleet::{Fleet, Order, Plan};
use crate::mom::reconcile::Promises;
use crate::service::Service;
use crate::watch::Watch;
use crate::work::{Load, Others, Work};

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
    /// Servers of topics and queues.
    pub moms: usize,
    /// Aggregators.
    pub aggregators: usize,
    /// What they are busy with.
    pub load: Load,
    /// The agents that report.
    pub plan: Plan,
    /// Settings of all services beside their addresses.
    pub settings: Vec<Setting>,
    /// Whether RabbitMQ or PostgreSQL will be away for a while.
    pub outage: bool,
    /// What it leaves in force, of topics and queues.
    pub promises: Promises,
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
    /// The servers of topics and queues.
    pub moms: Vec<Service>,
    /// The aggregators.
    pub aggregators: Vec<Service>,
    /// Between each server of topics and queues and RabbitMQ.
    pub mom_amqp: Vec<Proxy>,
    /// Between each aggregator and RabbitMQ.
    pub aggregator_amqp: Vec<Proxy>,
    /// Between each gateway and RabbitMQ.
    pub gateway_amqp: Vec<Proxy>,
    /// Between workers and RabbitMQ.
    pub worker_amqp: Proxy,
    /// Between services and PostgreSQL.
    pub postgres: Proxy,
    /// A transaction of a stranger's that holds a lock.
    pub held: Option<Held>,
    /// What fills PostgreSQL's disk.
    pub ballast: Option<Ballast>,
    /// Clients beside the agents.
    pub crowd: Crowd,
    /// Who publishes tasks, and whom they need.
    pub work: Option<Work>,
    /// Whether a worker may have come to no end between a dead letter and what it is about: then the
    /// letter is there again.
    pub letters_may_repeat: bool,
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
        let gateway_amqp = proxies(setup.gateways, amqp).await;
        let mom_amqp = proxies(setup.moms, amqp).await;
        let aggregator_amqp = proxies(setup.aggregators, amqp).await;
        let worker = async |_| {
            let own = vec![
                ("PLATZIVERSE_AMQP__URL", world.amqp_url_at(worker_amqp.address())),
                ("PLATZIVERSE_DATABASE__URL", world.database().url_at(postgres.address())),
            ];
            let process = world.try_worker_with(&together(&own, &setup.settings)).await?;
            Ok::<_, String>(Service::of(process, setup.outage))
        };
        let gateway = async |proxy: &Proxy| {
            let own = vec![("PLATZIVERSE_AMQP__URL", world.amqp_url_at(proxy.address()))];
            let process = world.try_gateway_with(&together(&own, &setup.settings)).await?;
            Ok::<_, String>(Service::of(process, setup.outage))
        };
        let mom = async |proxy: &Proxy| {
            let own = vec![
                ("PLATZIVERSE_AMQP__URL", world.amqp_url_at(proxy.address())),
                ("PLATZIVERSE_DATABASE__URL", world.database().url_at(postgres.address())),
            ];
            world.try_mom_with(&together(&own, &setup.settings)).await
        };
        // All at once, as whoever starts a whole system does.
        let (workers, gateways, moms, aggregators) = try_join4(
            try_join_all((0..setup.workers).map(worker)),
            try_join_all(gateway_amqp.iter().map(gateway)),
            try_join_all(mom_amqp.iter().map(mom)),
            aggregators_behind(&aggregator_amqp, &world, &setup.settings),
        )
        .await?;
        let addresses: Vec<SocketAddr> = gateways.iter().map(|one| one.mqtt()).collect();
        let others = Others { moms: &moms, aggregators: &aggregators };
        let work = Work::start(name, &world, &setup, &addresses, others).await?;
        let of_mom = |server: Mom| Service::of(server.into_process(), setup.outage);
        let moms = moms.into_iter().map(of_mom).collect();
        let of_aggregator = |one: Aggregator| Service::of(one.into_process(), setup.outage);
        let aggregators = aggregators.into_iter().map(of_aggregator).collect();
        let stage = Self {
            unexpected: Vec::new(),
            dead_expected: Vec::new(),
            watch: Watch::default(),
            fleet: Fleet::start(name, addresses.clone(), setup.plan),
            ears: addresses.into_iter().map(Ear::at).collect(),
            gateways,
            workers,
            moms,
            aggregators,
            mom_amqp,
            aggregator_amqp,
            gateway_amqp,
            worker_amqp,
            postgres,
            held: None,
            ballast: None,
            crowd: Crowd::default(),
            work,
            letters_may_repeat: false,
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
        for mom in &mut self.moms {
            mom.look();
            self.watch.mom(mom).await;
        }
        for aggregator in &mut self.aggregators {
            aggregator.look();
            self.watch.aggregator(aggregator).await;
        }
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.gateways.iter().chain(&self.workers).chain(&self.moms).chain(&self.aggregators)
    }

    /// The same, to be changed.
    pub fn services_mut(&mut self) -> impl Iterator<Item = &mut Service> {
        let services = self.gateways.iter_mut().chain(&mut self.workers).chain(&mut self.moms);
        services.chain(&mut self.aggregators)
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
            for process in stage.services() {
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

    /// Gives all clients that are the load an order.
    pub fn order(&self, order: Order) {
        self.fleet.order(order);
        if let Some(work) = &self.work {
            work.order(order);
        }
    }

    /// Waits until every agent has been told that something newer than now is kept, and newer tasks
    /// than now are done.
    pub async fn acknowledges(&mut self) -> Result<(), String> {
        let before = self.fleet.acknowledged();
        let sent = self.work.as_ref().map_or(0, Work::sent);
        self.until("tasks are done", READY, async |stage| match &stage.work {
            Some(work) => work.is_done_from(sent, &stage.world).await,
            None => Ok(()),
        })
        .await?;
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
            let work = stage.work.as_ref().map_or(0, Work::unsettled);
            match stage.fleet.unsettled() + stage.crowd.unsettled() + work {
                0 => Ok(()),
                count => Err(format!("{count} have none")),
            }
        })
        .await?;
        self.until("every command has ended", within, async |stage| match &stage.work {
            Some(work) => work.has_ended(&stage.world).await,
            None => Ok(()),
        })
        .await?;
        self.until("queues are empty and services are idle", within, async |stage| {
            stage.idle().await?;
            stage.queues_are_empty().await?;
            if stage.work.is_some() {
                // From one that was looked at later, a task may have come to one that was looked at
                // before.
                stage.queues_are_empty().await?;
            }
            // What left the queue while it was looked at is in a worker's hands.
            stage.idle().await
        })
        .await
    }

    async fn idle(&self) -> Result<(), String> {
        for service in self.services() {
            for (book, balance) in service.all_books().await? {
                let held = balance.in_flight;
                if held != 0.0 {
                    return Err(format!("{} has {held} of {book} in flight", service.name()));
                }
            }
        }
        Ok(())
    }

    /// Asks the node itself: what the management API says is seconds old.
    async fn queues_are_empty(&self) -> Result<(), String> {
        let vhost = self.world.vhost();
        let question = ["-q", "list_queues", "-p", vhost, "--no-table-headers", "name", "messages"];
        let answer = self.servers.ctl(&question).await?;
        for wanted in self.setup.load.queues() {
            let mut is_there = false;
            let queues = answer.lines().filter_map(|line| line.split_once('\t'));
            for (name, messages) in queues.filter(|(name, _)| name.starts_with(wanted)) {
                is_there = true;
                if messages.trim() != "0" {
                    return Err(format!("the queue {name} has {} messages", messages.trim()));
                }
            }
            if !is_there {
                return Err(format!("there is no queue {wanted}"));
            }
        }
        Ok(())
    }

    /// Ends every fault that may still hold, and lets things come to rest.
    pub async fn mend(&mut self, within: Duration) -> Result<(), String> {
        for proxy in self.to_rabbitmq().chain([&self.postgres]) {
            proxy.set(Toxic::None);
        }
        (self.held, self.ballast) = (None, None);
        self.crowd.calm();
        self.servers.try_run("start", "all").await?;
        self.services_mut().try_for_each(Service::start_again)?;
        if let Some(Work::Sessions(sessions)) = &mut self.work {
            sessions.mend()?;
        }
        self.order(Order::Settle);
        self.settle(within).await
    }

    /// Every way from a service to RabbitMQ.
    pub fn to_rabbitmq(&self) -> impl Iterator<Item = &Proxy> {
        let work = self.work.as_ref().and_then(Work::amqp);
        let services = self.gateway_amqp.iter().chain([&self.worker_amqp]).chain(&self.mom_amqp);
        services.chain(&self.aggregator_amqp).chain(work)
    }

    /// Something that should not have happened.
    pub fn note(&mut self, words: impl Into<String>) {
        self.unexpected.push(words.into());
    }
}

async fn proxies(count: usize, target: SocketAddr) -> Vec<Proxy> {
    let mut proxies = Vec::with_capacity(count);
    for _ in 0..count {
        proxies.push(Proxy::start(target).await);
    }
    proxies
}

/// An aggregator for each way to RabbitMQ.
async fn aggregators_behind(
    ways: &[Proxy],
    world: &World,
    settings: &[Setting],
) -> Result<Vec<Aggregator>, String> {
    let one = async |way: &Proxy| {
        let own = [("PLATZIVERSE_AMQP__URL", world.amqp_url_at(way.address()))];
        world.try_aggregator_with(&together(&own, settings)).await
    };
    try_join_all(ways.iter().map(one)).await
}

fn together<'a>(own: &'a [(&'static str, String)], more: &'a [Setting]) -> Vec<(&'a str, &'a str)> {
    own.iter().chain(more).map(|(name, value)| (*name, value.as_str())).collect()
}
