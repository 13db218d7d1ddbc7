//! Servers that are killed between PostgreSQL and RabbitMQ, and restarts of everything.

mod gate;

use std::collections::BTreeSet;
use std::time::Duration;

use platziverse_testkit::{Mom, MomAnswer, MomUser, PATIENCE, World, check, eventually};
use tokio::task::JoinSet;
use tokio::time::sleep;

use self::gate::Gate;
use crate::mom::{consume, create, publish, settle, subscribe, user};

/// RabbitMQ 3.10 writes which queues there are half a second after the last of them was made. Killed
/// before, it makes such a queue anew: empty, and without a leader for ever. Nobody can help that
/// from outside.
const NAMES_SAVED: Duration = Duration::from_secs(2);

/// Two users of a server, and what it runs in.
struct Scene {
    alice: MomUser,
    bob: MomUser,
    _server: Mom,
    world: World,
}

impl Scene {
    async fn new() -> Self {
        let world = World::start().await;
        let server = world.mom().await;
        Self { alice: user(&server).await, bob: user(&server).await, _server: server, world }
    }

    /// Waits until nothing is half-done any more.
    async fn settled(&self) {
        let unfinished = "SELECT (SELECT count(*) FROM mom_objects WHERE stage <> 'ready') \
                          + (SELECT count(*) FROM mom_subscriptions WHERE stage <> 'ready')";
        self.world.database().becomes(unfinished, "0").await;
    }
}

/// What is changed, and in how many steps that is done in RabbitMQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    NewTopic,
    NewQueue,
    OldTopic,
    OldQueue,
    Join,
    Leave,
    JoinQueue,
    LeaveQueue,
}

use Change::{Join, JoinQueue, Leave, LeaveQueue, NewQueue, NewTopic, OldQueue, OldTopic};

const CHANGES: [(Change, usize); 8] = [
    // The exchange, its creator's queue, and two bindings.
    (NewTopic, 4),
    (NewQueue, 2),
    // The exchange, and the queues of two.
    (OldTopic, 3),
    (OldQueue, 1),
    (Join, 3),
    (Leave, 1),
    // A queue is shared.
    (JoinQueue, 0),
    (LeaveQueue, 0),
];

/// A change that comes as far as its step.
#[derive(Clone, Debug)]
struct Attempt {
    change: Change,
    name: String,
    /// How many steps are done; without a number, all of them, and only the row is as it was.
    step: Option<usize>,
}

impl Attempt {
    fn all() -> Vec<Self> {
        let of = |(change, steps): (Change, usize)| {
            let steps = (0..steps).map(Some).chain([None]);
            steps.map(move |step| {
                let step_name = step.map_or_else(|| LAST.to_owned(), |step| step.to_string());
                Self { change, name: format!("{change:?}-{step_name}"), step }
            })
        };
        CHANGES.into_iter().flat_map(of).collect()
    }

    fn kind(&self) -> &'static str {
        match self.change {
            NewTopic | OldTopic | Join | Leave => "topics",
            NewQueue | OldQueue | JoinQueue | LeaveQueue => "queues",
        }
    }

    /// What must be there before.
    async fn prepare(&self, Scene { alice, bob, .. }: &Scene) {
        let (kind, name) = (self.kind(), &self.name);
        if !matches!(self.change, NewTopic | NewQueue) {
            create(alice, kind, name).await;
        }
        if matches!(self.change, OldTopic | OldQueue | Leave | LeaveQueue) {
            subscribe(bob, kind, name).await;
        }
        if matches!(self.change, OldTopic | OldQueue) {
            publish(bob, kind, name, "lost with it").await;
        }
    }

    /// Asks a server for it: why there is no answer.
    async fn make(self, alice: MomUser, bob: MomUser) -> Result<MomAnswer, String> {
        let (kind, name) = (self.kind(), &self.name);
        let of_name = format!("/v1/{kind}/{name}");
        let subscription = format!("{of_name}/subscription");
        match self.change {
            NewTopic | NewQueue => {
                let body = format!(r#"{{"name": "{name}"}}"#);
                alice.try_ask("POST", &format!("/v1/{kind}"), &[], body.as_bytes()).await
            }
            OldTopic | OldQueue => alice.try_ask("DELETE", &of_name, &[], b"").await,
            Join | JoinQueue => bob.try_ask("POST", &subscription, &[], b"").await,
            Leave | LeaveQueue => bob.try_ask("DELETE", &subscription, &[], b"").await,
        }
    }

    /// It is as if nobody had been killed.
    async fn assert_done(&self, Scene { alice, bob, .. }: &Scene) {
        let (kind, name) = (self.kind(), &self.name);
        match self.change {
            NewTopic | NewQueue => {
                assert_eq!(publish(bob, kind, name, name).await, 1, "{self:?}");
                let got = consume(alice, kind, name, "wait=10s").await;
                assert_eq!(got.text(), *name, "{self:?}");
                let body = format!(r#"{{"name": "{name}"}}"#);
                let again = alice.ask("POST", &format!("/v1/{kind}"), body.as_bytes()).await;
                assert_eq!(again.status, 200, "{self:?}: {}", again.text());
            }
            OldTopic | OldQueue => {
                let gone = alice.ask("GET", &format!("/v1/{kind}/{name}"), b"").await;
                assert_eq!(gone.status, 404, "{self:?}: {}", gone.text());
                create(bob, kind, name).await;
                let old = consume(bob, kind, name, "").await;
                assert_eq!(old.status, 204, "{self:?}: an old message: {}", old.text());
            }
            Join | JoinQueue => {
                assert_eq!(publish(alice, kind, name, name).await, 1, "{self:?}");
                let got = consume(bob, kind, name, "wait=10s").await;
                assert_eq!(got.text(), *name, "{self:?}");
            }
            Leave | LeaveQueue => {
                let receivers = publish(alice, kind, name, "to nobody else").await;
                assert_eq!(receivers, u64::from(self.change == LeaveQueue), "{self:?}");
                let left = consume(bob, kind, name, "").await;
                assert_eq!(left.code(), "not_subscribed", "{self:?}");
            }
        }
    }

    /// What RabbitMQ has of it at the end.
    fn objects(&self, Scene { alice, bob, .. }: &Scene) -> Vec<String> {
        let exchange = format!("mom.topic.{}", self.name);
        let of = |user: &MomUser| format!("{exchange}.{}", user.id);
        match self.change {
            NewTopic | Leave => vec![of(alice), exchange],
            Join => vec![of(alice), of(bob), exchange],
            OldTopic => vec![of(bob), exchange],
            NewQueue | OldQueue | JoinQueue | LeaveQueue => {
                vec![format!("mom.queue.{}", self.name)]
            }
        }
    }
}

/// The name of what is stopped by [`STALL`].
const LAST: &str = "last";
/// Stops whoever has done everything but to say so, as long as a name is in `stalls`.
const STALL: &str = "
CREATE TABLE stalls (name text);
CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT FROM stalls WHERE name = OLD.name)
    AND (TG_OP = 'DELETE' OR NEW.stage = 'ready') THEN
    PERFORM pg_sleep(600);
  END IF;
  IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER stall BEFORE UPDATE OR DELETE ON mom_objects
  FOR EACH ROW EXECUTE FUNCTION stall();
CREATE TRIGGER stall BEFORE UPDATE OR DELETE ON mom_subscriptions
  FOR EACH ROW EXECUTE FUNCTION stall();";
const STALLED: &str = "FROM pg_stat_activity WHERE datname = current_database() \
                       AND wait_event = 'PgSleep'";

/// Asks a server for changes of one kind, each of which is held at another of its steps, and kills
/// it then.
async fn killed_amid(scene: &Scene, gate: &Gate, victim: &mut Mom, attempts: &[Attempt]) {
    let (database, before) = (scene.world.database(), gate.count());
    let last = attempts.iter().filter(|one| one.step.is_none());
    let last: Vec<_> = last.map(|one| format!("('{}')", one.name)).collect();
    database.sql(&format!("INSERT INTO stalls VALUES {}", last.join(", "))).await;
    let mut asking = JoinSet::new();
    for attempt in attempts {
        let (alice, bob) = (scene.alice.at(victim), scene.bob.at(victim));
        asking.spawn(attempt.clone().make(alice, bob));
    }
    gate.holds(before + attempts.len() - last.len()).await;
    let stalled = format!("SELECT count(*) {STALLED}");
    database.becomes(&stalled, &last.len().to_string()).await;
    victim.kill();
    for answer in asking.join_all().await {
        // At a slow moment its time was over before.
        let is_done = answer.as_ref().is_ok_and(|answer| answer.status != 503);
        assert!(!is_done, "it was killed too late: {answer:?}");
    }
    database.sql("DELETE FROM stalls").await;
    database.sql(&format!("SELECT pg_terminate_backend(pid) {STALLED}")).await;
}

/// Every change, held at every one of its steps in a server that is then killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_server_leaves_half_done_is_finished_from_every_step() {
    let scene = Scene::new().await;
    let world = &scene.world;
    let attempts = Attempt::all();
    for attempt in &attempts {
        attempt.prepare(&scene).await;
    }
    let steps = attempts.iter().filter_map(|one| Some((one.name.clone(), one.step?)));
    let gate = Gate::start(world.amqp_address(), steps.collect()).await;
    let url = world.amqp_url_at(gate.address());
    let mut victim = world.mom_with(&[("PLATZIVERSE_AMQP__URL", &url)]).await;
    world.database().sql(STALL).await;
    for (number, of_one) in attempts.chunk_by(|one, next| one.change == next.change).enumerate() {
        if number > 0 {
            victim.restart().expect("it starts again");
            victim.ready().await;
        }
        killed_amid(&scene, &gate, &mut victim, of_one).await;
    }

    scene.settled().await;
    let mut wanted = BTreeSet::new();
    for attempt in &attempts {
        attempt.assert_done(&scene).await;
        wanted.extend(attempt.objects(&scene));
    }
    let mut there = BTreeSet::new();
    for kind in ["queues", "exchanges"] {
        let all = world.rabbitmq().list(kind).await;
        let names = all.iter().filter_map(|one| one["name"].as_str());
        there.extend(names.filter(|name| name.starts_with("mom.")).map(str::to_owned));
    }
    assert_eq!(there, wanted);
}

/// Asks again as long as the answer is that RabbitMQ is away: a queue may get its leader later than
/// RabbitMQ takes connections.
async fn retried(what: &str, wanted: u16, ask: impl AsyncFn() -> MomAnswer) -> MomAnswer {
    eventually(what, PATIENCE, || async {
        let answer = ask().await;
        if (answer.status, answer.code().as_str()) == (503, "unavailable") {
            return Err(answer.text());
        }
        assert_eq!(answer.status, wanted, "{what}: {}", answer.text());
        Ok(answer)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_everything_loses_nothing() {
    let world = World::private().await;
    let mut servers = [world.mom().await, world.mom().await];
    let (alice, bob) = (user(&servers[0]).await, user(&servers[1]).await);
    create(&alice, "queues", "n").await;
    create(&alice, "topics", "n").await;
    subscribe(&bob, "topics", "n").await;
    let mut wanted: BTreeSet<String> = (0..100).map(|number| number.to_string()).collect();
    for text in &wanted {
        publish(&alice, "queues", "n", text).await;
        assert_eq!(publish(&alice, "topics", "n", text).await, 1);
    }
    // What is lent is not lost either.
    let lent = consume(&alice, "queues", "n", "ack=manual&lease=20m").await;
    assert_eq!(lent.status, 200, "{}", lent.text());
    let keyed = async |user: MomUser| {
        let key = [("idempotency-key", "k")];
        let sent = user.ask_with("POST", "/v1/queues/n/messages", &key, b"keyed").await;
        assert_eq!(sent.status, 201, "{}", sent.text());
        sent.json()["id"].clone()
    };
    let id = keyed(alice.clone()).await;
    wanted.insert("keyed".to_owned());

    sleep(NAMES_SAVED).await;
    for server in &mut servers {
        server.kill();
    }
    world.servers().run("kill", "all").await;
    world.servers().run("start", "all").await;
    for server in &mut servers {
        server.restart().unwrap_or_else(|error| panic!("{error}"));
        server.ready().await;
    }
    // Publishes are known, leases are gone, and subscribers subscribed.
    assert_eq!(keyed(alice.at(&servers[1])).await, id);
    let late = settle(&alice.at(&servers[0]), lent.header("lease"), "ack").await;
    assert_eq!((late.status, late.code().as_str()), (410, "lease_gone"));
    let key = [("idempotency-key", "t")];
    let sent = retried("a publish to the topic", 201, async || {
        alice.at(&servers[0]).ask_with("POST", "/v1/topics/n/messages", &key, b"keyed").await
    });
    assert_eq!(sent.await.json()["receivers"], 1);
    for (consumer, kind) in [(alice.at(&servers[1]), "queues"), (bob.at(&servers[0]), "topics")] {
        let mut seen = BTreeSet::new();
        while seen.len() < wanted.len() {
            let what = format!("{kind}: the message after {}", seen.len());
            let got = retried(&what, 200, async || consume(&consumer, kind, "n", "wait=30s").await);
            let got = got.await;
            assert!(seen.insert(got.text()), "{kind}: twice: {}", got.text());
        }
        assert_eq!(seen, wanted, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_away_is_said_and_waited_for() {
    let world = World::private().await;
    let server = world.mom().await;
    let (alice, bob) = (user(&server).await, user(&server).await);
    create(&alice, "queues", "n").await;
    for part in ["rabbitmq", "postgres"] {
        publish(&alice, "queues", "n", "before").await;
        world.servers().run("stop", part).await;
        for (method, path) in [("POST", "messages"), ("POST", "consume"), ("DELETE", "messages")] {
            let path = format!("/v1/queues/n/{path}");
            let answer = bob.ask(method, &path, b"x").await;
            let seen = (answer.status, answer.code());
            let refused = [(503, "unavailable"), (403, "not_subscribed"), (403, "not_creator")];
            let known = refused.iter().any(|(status, code)| seen == (*status, (*code).to_owned()));
            assert!(known, "{part}: {method} {path}: {seen:?}");
            if seen.0 == 503 {
                assert!(!answer.header("retry-after").is_empty(), "{part}: {:?}", answer.headers);
            }
        }
        eventually("it is not ready", PATIENCE, || async {
            let (status, states) = server.readyz().await;
            check(status == 503, || states.to_string())
        })
        .await;
        world.servers().run("start", part).await;
        eventually("it is there again", PATIENCE, || async {
            let got = consume(&alice, "queues", "n", "").await;
            check(got.status == 200, || got.text())
        })
        .await;
        eventually("it is ready", PATIENCE, || async {
            let (status, states) = server.readyz().await;
            check(status == 200, || states.to_string())
        })
        .await;
        let purged = alice.ask("DELETE", "/v1/queues/n/messages", b"").await;
        assert_eq!(purged.status, 200, "{}", purged.text());
    }
}
