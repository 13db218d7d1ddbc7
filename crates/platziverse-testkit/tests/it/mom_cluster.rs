//! A RabbitMQ cluster of three, of which each node is killed in turn.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use platziverse_testkit::{Mom, MomAnswer, MomUser, PATIENCE, Proxy, World, check, eventually};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::mom::{create, settle, subscribe, user};

const NODES: usize = 3;
const PUBLISHERS: usize = 4;
const CONSUMERS: usize = 3;
/// Publishes confirmed in a row without a node, which is to show that two are enough.
const WITHOUT: usize = 200;
/// How long a publisher rests between two messages: a load, not a measurement.
const REST: Duration = Duration::from_millis(10);

/// What all callers see.
#[derive(Default)]
struct Seen {
    /// What was confirmed to its publisher, in the queue and in the topic.
    confirmed: Mutex<BTreeSet<String>>,
    count: AtomicUsize,
    /// What was consumed and not given back, of the queue and of the topic.
    done: [Mutex<BTreeSet<String>>; 2],
    retries: AtomicUsize,
    /// The longest time from the first attempt of a publish to its success.
    longest: Mutex<Duration>,
    unexpected: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Seen {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Whether the answer is one of `wanted`. Anything else but a retry is noted.
    async fn is(&self, what: &str, answer: &MomAnswer, wanted: &[u16]) -> bool {
        if wanted.contains(&answer.status) {
            return true;
        }
        if (answer.status, answer.code().as_str()) != (503, "unavailable") {
            let mut unexpected = self.unexpected.lock().expect("no panic");
            unexpected.push(format!("{what}: {} {}", answer.status, answer.text()));
        }
        self.retries.fetch_add(1, Ordering::Relaxed);
        let wait = answer.header("retry-after").parse().unwrap_or(1);
        sleep(Duration::from_secs(wait)).await;
        false
    }

    /// Asks until it is done: the answer.
    async fn ask(&self, method: &str, path: &str, one: &Request<'_>) -> MomAnswer {
        let begun = Instant::now();
        loop {
            let key = [("idempotency-key", one.key)];
            let headers = if one.key.is_empty() { &[][..] } else { &key };
            let answer = one.user.ask_with(method, path, headers, one.body.as_bytes()).await;
            if self.is(&format!("{method} {path}"), &answer, one.wanted).await {
                if !one.key.is_empty() {
                    let mut longest = self.longest.lock().expect("no panic");
                    *longest = begun.elapsed().max(*longest);
                }
                return answer;
            }
        }
    }
}

/// What is asked for.
struct Request<'a> {
    user: &'a MomUser,
    body: &'a str,
    key: &'a str,
    wanted: &'a [u16],
}

/// Publishes until it is over; each message to the queue and to the topic.
async fn publish_on(seen: Arc<Seen>, user: MomUser, number: usize) {
    let mut turn = 0;
    while !seen.is_over() {
        let text = format!("{number}-{turn}");
        for kind in ["queues", "topics"] {
            let request = Request { user: &user, body: &text, key: &text, wanted: &[201] };
            seen.ask("POST", &format!("/v1/{kind}/n/messages"), &request).await;
        }
        seen.confirmed.lock().expect("no panic").insert(text);
        seen.count.fetch_add(1, Ordering::Relaxed);
        turn += 1;
        sleep(REST).await;
    }
}

/// Consumes with leases, and settles at whichever server.
async fn consume_on(seen: Arc<Seen>, [at, elsewhere]: [MomUser; 2], kind: usize) {
    let path = ["/v1/queues/n/consume", "/v1/topics/n/consume"][kind];
    let query = format!("{path}?wait=2s&ack=manual&lease=1m");
    for turn in 0.. {
        let request = Request { user: &at, body: "", key: "", wanted: &[200, 204] };
        let got = seen.ask("POST", &query, &request).await;
        if got.status == 204 {
            if seen.is_over() && seen.has_all(kind) {
                return;
            }
            continue;
        }
        let settler = if turn % 2 == 0 { &at } else { &elsewhere };
        // What is given back must come again.
        let how = if turn % 5 == 4 { "nack" } else { "ack" };
        loop {
            let settled = settle(settler, got.header("lease"), how).await;
            // A lease that ended with its connection may have been settled before.
            if seen.is(how, &settled, &[204, 410]).await {
                break;
            }
        }
        if how == "ack" {
            seen.done[kind].lock().expect("no panic").insert(got.text());
        }
    }
}

impl Seen {
    fn has_all(&self, kind: usize) -> bool {
        let confirmed = self.confirmed.lock().expect("no panic");
        confirmed.is_subset(&self.done[kind].lock().expect("no panic"))
    }
}

/// Creates and deletes until it is over.
async fn change_on(seen: Arc<Seen>, user: MomUser) {
    let mut turn = 0;
    while !seen.is_over() {
        let name = format!("change-{turn}");
        for kind in ["queues", "topics"] {
            let (path, body) = (format!("/v1/{kind}"), format!(r#"{{"name": "{name}"}}"#));
            let request = Request { user: &user, body: &body, key: "", wanted: &[201, 200] };
            seen.ask("POST", &path, &request).await;
            let request = Request { user: &user, body: "x", key: "", wanted: &[201] };
            seen.ask("POST", &format!("{path}/{name}/messages"), &request).await;
            // Begun before a retry, it may be done already.
            let request = Request { user: &user, body: "", key: "", wanted: &[204, 404] };
            seen.ask("DELETE", &format!("{path}/{name}"), &request).await;
        }
        turn += 1;
        sleep(REST * 10).await;
    }
}

/// Kills a node, waits until enough was confirmed without it, and lets it come back. A balancer
/// leads the servers to another one.
async fn kill(world: &World, balancers: &[Proxy], seen: &Seen, node: usize) {
    let name = format!("rabbitmq-{}", node + 1);
    let (retries, begun) = (seen.retries.load(Ordering::Relaxed), Instant::now());
    *seen.longest.lock().expect("no panic") = Duration::ZERO;
    world.servers().run("kill", &name).await;
    for (number, balancer) in balancers.iter().enumerate() {
        let next = (node + 1 + number) % NODES;
        let next = if next == node { (node + 1) % NODES } else { next };
        balancer.retarget(world.servers().address(&format!("AMQP_URL_{}", next + 1)));
    }
    let before = seen.count.load(Ordering::Relaxed);
    eventually("publishes are confirmed without it", PATIENCE, || async {
        let count = seen.count.load(Ordering::Relaxed) - before;
        check(count >= WITHOUT, || format!("{count} of {WITHOUT}"))
    })
    .await;
    world.servers().run("start", &name).await;
    let longest = *seen.longest.lock().expect("no panic");
    let retries = seen.retries.load(Ordering::Relaxed) - retries;
    println!(
        "{name}: {retries} retries, the longest publish took {longest:?}, in {:?}",
        begun.elapsed()
    );
}

/// A server behind a balancer.
async fn server(world: &World, balancer: &Proxy) -> Mom {
    let url = world.amqp_url_at(balancer.address());
    world.mom_with(&[("PLATZIVERSE_AMQP__URL", &url)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_of_a_cluster_may_be_killed() {
    let world = World::cluster().await;
    let mut balancers = Vec::new();
    for node in 1..=2 {
        let node = world.servers().address(&format!("AMQP_URL_{node}"));
        balancers.push(Proxy::start(node).await);
    }
    let (one, two) = (server(&world, &balancers[0]).await, server(&world, &balancers[1]).await);
    let (alice, bob) = (user(&one).await, user(&two).await);
    for kind in ["queues", "topics"] {
        create(&alice, kind, "n").await;
        subscribe(&bob, kind, "n").await;
    }
    let seen = Arc::new(Seen::default());
    let mut busy = JoinSet::new();
    for number in 0..PUBLISHERS {
        let alice = alice.at(if number % 2 == 0 { &one } else { &two });
        busy.spawn(publish_on(seen.clone(), alice, number));
    }
    for number in 0..CONSUMERS {
        let (at, elsewhere) = if number % 2 == 0 { (&one, &two) } else { (&two, &one) };
        for kind in 0..2 {
            let users = [bob.at(at), bob.at(elsewhere)];
            busy.spawn(consume_on(seen.clone(), users, kind));
        }
    }
    busy.spawn(change_on(seen.clone(), alice.at(&two)));
    for node in 0..NODES {
        kill(&world, &balancers, &seen, node).await;
    }
    seen.is_over.store(true, Ordering::Relaxed);
    eventually("all that was confirmed is consumed", PATIENCE * 2, || async {
        check(seen.has_all(0) && seen.has_all(1), || {
            let missing = [0, 1].map(|kind| {
                let confirmed = seen.confirmed.lock().expect("no panic");
                confirmed.difference(&seen.done[kind].lock().expect("no panic")).count()
            });
            format!("missing of the queue and of the topic: {missing:?}")
        })
    })
    .await;
    busy.join_all().await;
    let unexpected = seen.unexpected.lock().expect("no panic").clone();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    let letters = world.rabbitmq().dead_letters().await;
    assert!(letters.is_empty(), "{letters:?}");
    println!("{} confirmed", seen.count.load(Ordering::Relaxed));
}
