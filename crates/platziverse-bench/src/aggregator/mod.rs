//! Clients with WebSockets, at an aggregator or at RabbitMQ's own plugin.

mod dialect;
mod direct;
mod fan;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use platziverse_load::{Latency, Recorder};
use platziverse_testkit::{Aggregator, World};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

pub(crate) use self::dialect::CHANNELS;
use self::dialect::{Dialect, Heard, QUEUE, To};
pub(crate) use self::direct::write;
pub(crate) use self::fan::{Split, out};
pub(crate) use self::socket::{Socket, Target};
use crate::figure::Subject;
use crate::mom::{Counted, Load, Window};
use crate::site::{Site, settle};

/// More than any load here: the limits count, and stop nobody.
const SETTINGS: [(&str, &str); 2] = [
    ("PLATZIVERSE_AGGREGATOR__PACKETS_PER_SECOND", "1000000"),
    ("PLATZIVERSE_AGGREGATOR__BYTES_PER_SECOND", "1073741824"),
];
/// Publishes of one client that have no receipt yet.
const IN_FLIGHT: usize = 20;
/// How often, and how many times, it is looked at what a queue holds.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS: usize = 20;
/// How long the sockets may take to hear something.
const PATIENCE: Duration = Duration::from_secs(20);
/// Sockets that are listened to at a time.
const AT_ONCE: usize = 64;

pub(crate) type Tasks = JoinSet<Result<(), String>>;

/// One of those that are compared, running.
pub(crate) struct Stand {
    pub(crate) target: Target,
    /// The process that has the sockets.
    pub(crate) process: u32,
    // It ends before what it uses goes.
    aggregator: Option<Aggregator>,
    pub(crate) world: World,
}

impl Stand {
    /// Starts it.
    pub(crate) async fn start(site: &Site, subject: Subject) -> Result<Self, String> {
        let world = World::on(Arc::clone(&site.servers)).await;
        if subject != Subject::Platziverse {
            let arguments = json!({"x-queue-type": "quorum"});
            world.rabbitmq().declare_queue(QUEUE, true, arguments).await;
            let dialect = Dialect::stomp(&world, &site.login.username, &site.login.password);
            let target = Target { address: site.web_stomp, dialect };
            let process = site.process("rabbitmq/vm.pid")?;
            settle().await;
            return Ok(Self { target, process, aggregator: None, world });
        }
        let aggregator = world.try_aggregator_with(&SETTINGS).await?;
        let target = Target { address: aggregator.address(), dialect: Dialect::Packets };
        settle().await;
        Ok(Self { target, process: aggregator.pid(), aggregator: Some(aggregator), world })
    }

    /// The queue of the first channel's servers.
    fn queue(&self) -> String {
        match &self.aggregator {
            Some(_) => format!("IN_{}", CHANNELS[0].to_uppercase()),
            None => QUEUE.to_owned(),
        }
    }

    /// Fails unless the queue of the first channel's servers holds so many messages.
    pub(crate) async fn holds(&self, site: &Site, messages: u64) -> Result<(), String> {
        let queue = self.queue();
        let arguments = [
            "-q",
            "list_queues",
            "-p",
            self.world.vhost(),
            "--no-table-headers",
            "name",
            "messages",
        ];
        let mut held = String::new();
        for _ in 0..LOOKS {
            let listed = site.servers.ctl(&arguments).await?;
            let mut lines = listed.lines().filter_map(|line| line.split_once('\t'));
            held = lines.find(|(name, _)| *name == queue).map_or("", |(_, held)| held).to_owned();
            if held.trim().parse() == Ok(messages) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(format!("{queue} holds {held} messages and not {messages}"))
    }

    /// Sends one message over each channel; how many of these sockets hear one in time.
    pub(crate) async fn alive(&self, sockets: Vec<Socket>) -> Result<usize, String> {
        let mut speaker = self.target.connect("speaker").await?;
        for channel in 0..CHANNELS.len() {
            speaker.publish(To::Everyone(channel), channel as u64).await?;
        }
        speaker.flush().await?;
        let end = Instant::now() + PATIENCE;
        let heard = stream::iter(sockets).map(|mut socket| async move {
            let hearing = async {
                while !matches!(socket.hear().await?, Heard::Message(..)) {}
                Ok::<_, String>(())
            };
            matches!(timeout_at(end, hearing).await, Ok(Ok(())))
        });
        let alive = heard.buffer_unordered(AT_ONCE).filter(|alive| std::future::ready(*alive));
        Ok(alive.count().await)
    }

    /// Has clients publish to servers, each with so many receipts awaited; receipts are counted.
    pub(crate) async fn publish(
        &self,
        site: &Site,
        clients: usize,
        window: Window,
    ) -> Result<Counted, String> {
        let (load, mut tasks) = (Arc::new(Load::new()), Tasks::new());
        for client in 0..clients {
            let socket = self.target.connect(&format!("client-{client}")).await?;
            tasks.spawn(publish(socket, Arc::clone(&load)));
        }
        let counted = load.run(tasks, self.process, window).await?;
        self.holds(site, load.count()).await?;
        Ok(counted)
    }

    /// Has clients ask servers, each one request at a time; replies are counted, and how long each
    /// took.
    pub(crate) async fn ask(
        &self,
        clients: usize,
        window: Window,
    ) -> Result<(Counted, Latency), String> {
        let (load, mut tasks) = (Arc::new(Load::new()), Tasks::new());
        let recorder = Arc::new(Recorder::new());
        let counting = Instant::now() + window.warm_up;
        for client in 0..clients {
            let socket = self.target.connect(&format!("client-{client}")).await?;
            let recorder = Arc::clone(&recorder);
            tasks.spawn(ask(socket, client, Arc::clone(&load), (recorder, counting)));
        }
        let counted = load.run(tasks, self.process, window).await?;
        Ok((counted, recorder.read().1))
    }
}

async fn publish(mut socket: Socket, load: Arc<Load>) -> Result<(), String> {
    let mut unanswered = 0;
    loop {
        while unanswered < IN_FLIGHT
            && let Some(number) = load.next()
        {
            socket.publish(To::Servers(0), number).await?;
            unanswered += 1;
        }
        socket.flush().await?;
        if unanswered == 0 {
            return Ok(());
        }
        if let Heard::Receipt(_) = socket.hear().await? {
            unanswered -= 1;
            load.done();
        }
    }
}

async fn ask(
    mut socket: Socket,
    client: usize,
    load: Arc<Load>,
    (recorder, counting): (Arc<Recorder>, Instant),
) -> Result<(), String> {
    while let Some(number) = load.next() {
        let asked = Instant::now();
        socket.request(number).await?;
        while socket.hear().await? != Heard::Reply(number) {}
        if asked >= counting {
            recorder.record(client, std::iter::once(asked.elapsed()));
        }
        load.done();
    }
    Ok(())
}
