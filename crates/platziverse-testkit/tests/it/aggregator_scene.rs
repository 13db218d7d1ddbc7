//! Clients, aggregators and servers at work, for tests that kill some of them: what must be true
//! afterwards, whatever it was.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use platziverse_kit::{Options, Sender, Server};
use platziverse_testkit::{
    Aggregator, Follower, FollowerOptions, PATIENCE, Process, World, check, eventually,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

const CLIENTS: [&str; 3] = ["ana", "bob", "cleo"];
/// Between two broadcasts: 200 a second.
const BROADCAST_EVERY: Duration = Duration::from_millis(5);
/// Between a request's outcome and the next request of the same client.
const REST: Duration = Duration::from_millis(40);
/// Longer than anything that is done to the scene.
const DEADLINE: Duration = Duration::from_secs(60);

/// What goes on meanwhile.
#[derive(Debug, Default)]
struct Busy {
    is_over: AtomicBool,
    /// Broadcasts that are confirmed, and those that had to be tried again.
    told: AtomicUsize,
    retold: AtomicUsize,
    /// Requests with a reply, and errors before it.
    replies: AtomicUsize,
    errors: AtomicUsize,
}

impl Busy {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn progress(&self) -> [usize; 2] {
        [&self.told, &self.replies].map(|count| count.load(Ordering::Relaxed))
    }
}

/// What may happen at most.
pub(crate) struct Most {
    /// How often one request is done.
    pub(crate) executions: usize,
    /// Losses of the connection that broadcasts go over: what is in doubt then is sent again.
    pub(crate) losses: usize,
}

impl Most {
    /// Each request is done once, and no connection to RabbitMQ is lost.
    pub(crate) const ONCE: Self = Self { executions: 1, losses: 0 };
}

/// Three careful clients that hear broadcasts, 200 a second, and ask one request after the other.
pub(crate) struct Scene {
    busy: Arc<Busy>,
    tasks: JoinSet<()>,
    pub(crate) followers: Vec<Arc<Follower>>,
    server: Server,
}

impl Scene {
    /// At these aggregators; broadcasts go to RabbitMQ by that URL.
    pub(crate) async fn start(aggregators: &[SocketAddr], url: &str) -> Self {
        let options = Options::new(url).expect("it is a URL");
        let server = Server::connect(options).await.expect("RabbitMQ is there");
        let (busy, mut tasks) = (Arc::<Busy>::default(), JoinSet::new());
        let mut followers = Vec::new();
        let mut addresses = aggregators.to_vec();
        for name in CLIENTS {
            let options = FollowerOptions::new(name, &["chat"]);
            let follower = Arc::new(Follower::start(&addresses, options).await);
            addresses.rotate_left(1);
            tasks.spawn(ask_on(busy.clone(), follower.clone(), name));
            followers.push(follower);
        }
        tasks.spawn(tell_on(busy.clone(), server.sender()));
        let scene = Self { busy, tasks, followers, server };
        scene.goes_on(200, 20).await;
        scene
    }

    /// Waits until so many more broadcasts are confirmed, and so many more requests have a reply.
    pub(crate) async fn goes_on(&self, told: usize, replies: usize) {
        let before = self.busy.progress();
        eventually("the scene goes on", PATIENCE, || async {
            let now = self.busy.progress();
            let more = [now[0] - before[0], now[1] - before[1]];
            check(more[0] >= told && more[1] >= replies, || {
                format!("{more:?} of {told} broadcasts and {replies} replies")
            })
        })
        .await;
    }

    /// How often clients were welcomed in all.
    pub(crate) fn welcomes(&self) -> u64 {
        self.followers.iter().map(|follower| follower.welcomes().0).sum()
    }

    /// Ends it, and sees that nobody missed anything: every broadcast was heard by everyone, in
    /// order, and every request had one outcome each time it was asked. How many broadcasts there were.
    pub(crate) async fn finish(self, what: &str, servers: &[Process], most: Most) -> usize {
        let Self { busy, mut tasks, followers, server } = self;
        busy.is_over.store(true, Ordering::Relaxed);
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        let [told, replies] = busy.progress();
        let [retold, errors] =
            [&busy.retold, &busy.errors].map(|count| count.load(Ordering::Relaxed));
        for (follower, name) in followers.iter().zip(CLIENTS) {
            let last = json!(told - 1);
            eventually(&format!("{name} hears the last"), PATIENCE, || async {
                let said = follower.said("OUT_CHAT");
                check(said.last() == Some(&last), || {
                    format!("{:?} of {last}, {:?}", said.last(), follower.gaps())
                })
            })
            .await;
            let doubled = heard_all(name, follower.said("OUT_CHAT"), told);
            assert!(doubled <= most.losses + retold, "{name} heard {doubled} twice");
            assert!(follower.gaps().is_empty(), "{name}: {:?}", follower.gaps());
            assert!(follower.errors().is_empty(), "{name}: {:?}", follower.errors());
        }
        let executions = executions(servers, replies);
        assert!(executions <= most.executions, "{what}: a request was done {executions} times");
        let of = |count: fn(&Follower) -> u64| followers.iter().map(|one| count(one)).sum::<u64>();
        println!(
            "{what}: {told} broadcasts ({retold} tried again), {replies} replies after {errors} errors, \
             {} welcomes, {} repeats, a request was done {executions} times at most",
            of(|one| one.welcomes().0),
            of(Follower::repeats)
        );
        assert!(server.end(PATIENCE).await);
        told
    }
}

/// Every number, in order; how many came twice.
fn heard_all(name: &str, said: Vec<Value>, told: usize) -> usize {
    let mut numbers: Vec<_> = said.iter().filter_map(Value::as_u64).collect();
    assert_eq!(numbers.len(), said.len(), "{name} heard more than broadcasts");
    numbers.dedup();
    let gap = numbers.iter().zip(0..).find(|(number, place)| **number != *place);
    assert_eq!((gap, numbers.len()), (None, told), "{name}");
    said.len() - numbers.len()
}

/// How often the request was done that was done most often, by these servers. Each was done.
fn executions(servers: &[Process], requests: usize) -> usize {
    let mut done = std::collections::HashMap::<String, usize>::new();
    for server in servers {
        for line in server.log().lines().filter_map(|line| line.strip_prefix("works on ")) {
            *done.entry(line.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(done.len(), requests, "each request is done");
    done.into_values().max().unwrap_or_default()
}

/// Broadcasts numbers until it is over, each until it is confirmed.
async fn tell_on(busy: Arc<Busy>, sender: Sender) {
    let mut ticks = interval(BROADCAST_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !busy.is_over() {
        ticks.tick().await;
        let number = busy.told.load(Ordering::Relaxed);
        while sender.broadcast("chat", &number).await.is_err() {
            busy.retold.fetch_add(1, Ordering::Relaxed);
        }
        busy.told.fetch_add(1, Ordering::Relaxed);
    }
}

/// Asks until it is over: each request under its id, until there is a reply.
async fn ask_on(busy: Arc<Busy>, follower: Arc<Follower>, name: &str) {
    for number in 0.. {
        if busy.is_over() {
            return;
        }
        let id = format!("{name}-{number}");
        for attempt in 1.. {
            follower.request(&id, "chat", json!(id), DEADLINE);
            let outcomes = eventually(&format!("{id} has an outcome"), 2 * PATIENCE, || async {
                let outcomes = follower.outcomes(&id);
                check(outcomes.len() >= attempt, || format!("{outcomes:?}"))?;
                Ok(outcomes)
            })
            .await;
            assert_eq!(outcomes.len(), attempt, "{id} has one outcome each time: {outcomes:?}");
            let outcome = &outcomes[attempt - 1];
            if outcome["packet_action"] == "reply" {
                assert_eq!(outcome["message"]["echo"], json!(id));
                busy.replies.fetch_add(1, Ordering::Relaxed);
                break;
            }
            assert_eq!(outcome["code"], "unavailable", "{outcome}");
            busy.errors.fetch_add(1, Ordering::Relaxed);
        }
        sleep(REST).await;
    }
}

/// Where aggregators listen.
pub(crate) fn addresses(aggregators: &[Aggregator]) -> Vec<SocketAddr> {
    aggregators.iter().map(Aggregator::address).collect()
}

/// So many servers of `chat`.
pub(crate) fn servers(world: &World, url: &str, count: usize) -> Vec<Process> {
    (0..count).map(|_| world.echo_server(url, &["--channel", "chat"])).collect()
}
