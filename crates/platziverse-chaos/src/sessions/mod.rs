//! Clients of aggregators as load: they publish to each other and to servers, ask servers, come back
//! with their resume tokens, and ask again what has no outcome; and the servers, who write down what
//! they do.

pub mod client;
pub mod kind;
pub mod reconcile;

use std::sync::Arc;
use std::time::Duration;

use platziverse_testkit::{Aggregator, Proxy, World};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::client::Client;
use self::kind::{CHAT, CLIENTS, SOURCES, name};
use self::reconcile::{Entry, reconcile};
use crate::fleet::Order;
use crate::mom::reconcile::Promises;
use crate::reconcile::Tally;
use crate::service::Service;

/// Of the messages that are wanted a second, the share that there are.
const SHARE: f64 = 0.05;
/// Servers of the channel [`CHAT`].
const SERVERS: usize = 2;
/// How long their work takes: some of it is always under way.
const WORK: &str = "100ms";
/// When nothing has come for so long from a stream, that was all of it.
const QUIET: Duration = Duration::from_secs(1);
/// How long what is in the streams may take to its clients, once all is well.
const CATCH_UP: Duration = Duration::from_secs(15);
/// How long clients may take to end.
const END: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

/// The load.
#[derive(Debug)]
pub struct Sessions {
    /// Between servers and RabbitMQ.
    pub amqp: Proxy,
    /// The servers.
    pub servers: Vec<Service>,
    /// Between clients and each aggregator.
    pub ways: Vec<Proxy>,
    clients: Vec<Arc<Client>>,
    orders: watch::Sender<Order>,
    tasks: JoinSet<()>,
}

impl Sessions {
    /// Starts the servers and the clients, which send a share of `rate` packets a second together.
    pub async fn start(
        world: &World,
        aggregators: &[Aggregator],
        rate: f64,
    ) -> Result<Self, String> {
        let amqp = Proxy::start(world.amqp_address()).await;
        let url = world.amqp_url_at(amqp.address());
        let arguments = ["--channel", CHAT, "--delay", WORK];
        let server = |_| Service::of(world.echo_server(&url, &arguments), true);
        let servers = (0..SERVERS).map(server).collect();
        let mut ways = Vec::new();
        for aggregator in aggregators {
            ways.push(Proxy::start(aggregator.address()).await);
        }
        let addresses: Vec<_> = ways.iter().map(Proxy::address).collect();
        let (orders, mut tasks) = (watch::channel(Order::Report).0, JoinSet::new());
        let pause = Duration::from_secs_f64(CLIENTS as f64 / (SHARE * rate).max(0.01));
        let mut clients = Vec::new();
        for place in 0..CLIENTS {
            let mut addresses = addresses.clone();
            let count = addresses.len().max(1);
            addresses.rotate_left(place % count);
            clients.push(Arc::new(Client::start(place, &addresses).await));
        }
        // Whatever is sent, everybody is there to hear it.
        for client in &clients {
            tasks.spawn(Arc::clone(client).act(orders.subscribe(), pause));
        }
        Ok(Self { amqp, servers, ways, clients, orders, tasks })
    }

    /// Gives all clients an order.
    pub fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// Starts servers that do not run, and lets clients through.
    pub fn mend(&mut self) -> Result<(), String> {
        self.ways.iter().for_each(|way| way.set(platziverse_testkit::Toxic::None));
        self.servers.iter_mut().try_for_each(Service::start_again)
    }

    /// Lets clients go elsewhere, as those do whose connection is silent for too long.
    pub fn leave(&self) {
        self.clients.iter().for_each(|client| client.follower.lose_connection());
    }

    /// How many clients there are.
    pub fn clients(&self) -> u64 {
        self.clients.len() as u64
    }

    /// How often clients have gone on with a session.
    pub fn resumed(&self) -> u64 {
        self.clients.iter().map(|client| client.follower.welcomes().1).sum()
    }

    /// How many requests have no outcome yet.
    pub fn asking(&self) -> u64 {
        self.clients.iter().map(|client| client.asking()).sum()
    }

    /// How many packets were answered as `unavailable`.
    pub fn hindered(&self) -> u64 {
        self.clients.iter().map(|client| client.hindered()).sum()
    }

    /// How many packets the most eager client has sent.
    pub fn sent(&self) -> u64 {
        self.clients.iter().map(|client| client.sent()).max().unwrap_or(0)
    }

    /// How many packets have no outcome.
    pub fn open(&self) -> u64 {
        self.clients.iter().map(|client| client.open()).sum()
    }

    /// Whether a request of every client, later than its packet of this number, has its reply.
    pub fn are_done_from(&self, number: u64) -> Result<(), String> {
        let behind = self.clients.iter().filter(|client| !client.is_done_from(number));
        match behind.count() {
            0 => Ok(()),
            count => Err(format!("{count} clients have no reply to a request after {number}")),
        }
    }

    /// Ends, and counts.
    pub async fn close(&mut self, world: &World, promises: Promises) -> Result<Tally, String> {
        self.order(Order::End);
        let ending = async { while self.tasks.join_next().await.is_some() {} };
        let _ = timeout(END, ending).await;
        self.tasks.shutdown().await;
        let mut entries = Vec::new();
        for source in SOURCES {
            let mut stream = world.stream(source).await;
            while let Some(message) = stream.try_next(QUIET).await {
                entries.extend(Entry::of(source, &message));
            }
        }
        let catching_up = async {
            while !self.clients.iter().all(|client| client.has_come(&entries)) {
                tokio::time::sleep(LOOK).await;
            }
        };
        // Who has not by then has missed it, which is counted.
        let _ = timeout(CATCH_UP, catching_up).await;
        let pages: Vec<_> = self.clients.iter().map(|client| client.page()).collect();
        let logs: Vec<_> = self.servers.iter().map(|server| server.log()).collect();
        let mut tally = reconcile(&pages, &entries, &reconcile::deeds(&logs), promises.done_once);
        tally.unexpected.extend(self.servers.iter_mut().flat_map(Service::unexpected));
        tally.notes.push(format!(
            "sessions that went on: {}; packets answered as unavailable: {}",
            self.resumed(),
            self.hindered()
        ));
        self.servers.iter_mut().for_each(Service::kill);
        Ok(tally)
    }
}

/// The names of those that a packet of this number of the client at this place is for.
fn neighbours(place: usize, number: u64) -> Vec<String> {
    let step = usize::try_from(number % 3).unwrap_or_default() + 1;
    vec![name((place + step) % CLIENTS), name((place + step + 1) % CLIENTS)]
}
