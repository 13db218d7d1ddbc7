//! Servers, aggregators, sockets and RabbitMQ that die while clients are at work.

use std::time::Duration;

use platziverse_testkit::{
    Follower, FollowerOptions, PATIENCE, Proxy, Toxic, World, check, eventually,
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::aggregator::{back, consume, publish, token};
use crate::aggregator_scene::{Most, Scene, addresses, servers};

/// RabbitMQ 3.10 writes which queues there are half a second after the last of them was made. Killed
/// before, it makes such a queue anew: empty, and without a leader for ever.
const NAMES_SAVED: Duration = Duration::from_secs(2);
/// So long nobody waits.
const FOR_EVER: &str = "36000s";
const SOON: Duration = Duration::from_secs(30);

/// That a client has noticed nothing: one welcome, no end, no error.
fn noticed_nothing(follower: &Follower) {
    assert_eq!(follower.welcomes(), (1, 0));
    assert!(follower.closes().is_empty(), "{:?}", follower.closes());
    assert!(follower.errors().is_empty(), "{:?}", follower.errors());
    assert_eq!((follower.repeats(), follower.gaps()), (0, Vec::new()));
}

/// Asks, and sees the one reply: the server that made it.
async fn asks(follower: &Follower, id: &str) -> Value {
    follower.request(id, "chat", json!(id), SOON);
    let outcome = follower.outcome(id).await;
    assert_eq!(outcome["message"]["echo"], json!(id), "{outcome}");
    assert_eq!(follower.outcomes(id).len(), 1);
    outcome["message"]["server"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_dies_with_nothing_to_do() {
    let world = World::unmigrated().await;
    let at = world.aggregator().await;
    let mut server = world.echo_server(world.amqp_url(), &["--channel", "chat"]);
    let ana = Follower::start(&[at.address()], FollowerOptions::new("ana", &["chat"])).await;
    asks(&ana, "before").await;
    server.kill();
    // What is asked and said meanwhile waits for it.
    ana.request("meanwhile", "chat", json!("meanwhile"), SOON);
    ana.send("say", publish("say", json!({}), json!({"say": "hello"})));
    assert_eq!(ana.outcome("say").await["packet_action"], "receipt");
    server.restart().expect("it starts again");
    assert_eq!(ana.outcome("meanwhile").await["message"]["echo"], "meanwhile");
    asks(&ana, "after").await;
    let said = ana.hears("OUT_CHAT", 1).await;
    assert_eq!((said.len(), &said[0]["said"]), (1, &json!("hello")));
    noticed_nothing(&ana);
    assert_eq!(server.log().matches("works on").count(), 4, "{}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_dies_in_its_work() {
    let world = World::unmigrated().await;
    let at = world.aggregator().await;
    let mut doomed =
        world.echo_server(world.amqp_url(), &["--channel", "chat", "--delay", FOR_EVER]);
    let ana = Follower::start(&[at.address()], FollowerOptions::new("ana", &["chat"])).await;
    ana.request("1", "chat", json!("1"), SOON);
    ana.send("2", publish("2", json!({}), json!({"say": "hello"})));
    doomed.writes("works on", 2).await;
    assert!(ana.outcomes("1").is_empty());
    let other = world.echo_server(world.amqp_url(), &["--channel", "chat"]);
    doomed.kill();
    let outcome = ana.outcome("1").await;
    assert_eq!(outcome["message"], json!({"echo": "1", "server": other.pid()}));
    let said = json!({"said": "hello", "client": "ana", "server": other.pid()});
    ana.hears("OUT_CHAT", 1).await;
    // It comes back, and finds nothing that is left.
    doomed.restart().expect("it starts again");
    doomed.writes("rabbitmq, server is ready", 2).await;
    let queue = || async {
        let queue = world.rabbitmq().queue("IN_CHAT").await.unwrap_or_default();
        check(queue["messages"] == 0, || queue["messages"].to_string())
    };
    eventually("all is done", PATIENCE, queue).await;
    assert_eq!(ana.outcomes("1").len(), 1);
    assert_eq!(ana.said("OUT_CHAT"), [said]);
    noticed_nothing(&ana);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_die_under_load() {
    let world = World::unmigrated().await;
    let aggregators = [world.aggregator().await, world.aggregator().await];
    let mut servers = servers(&world, world.amqp_url(), 2);
    let scene = Scene::start(&addresses(&aggregators), world.amqp_url()).await;
    for doomed in &mut servers {
        doomed.kill();
        scene.goes_on(100, 20).await;
        doomed.restart().expect("it starts again");
        scene.goes_on(100, 20).await;
    }
    scene.followers.iter().for_each(|follower| noticed_nothing(follower));
    scene.finish("servers died", &servers, Most { executions: 2, losses: 0 }).await;
    assert!(world.rabbitmq().dead_letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregator_dies() {
    let world = World::unmigrated().await;
    let mut aggregators = [world.aggregator().await, world.aggregator().await];
    let servers = servers(&world, world.amqp_url(), 1);
    let scene = Scene::start(&addresses(&aggregators), world.amqp_url()).await;
    for doomed in 0..4 {
        let doomed = &mut aggregators[doomed % 2];
        doomed.kill();
        scene.goes_on(200, 30).await;
        doomed.restart().expect("it starts again");
        doomed.ready().await;
    }
    assert!(scene.welcomes() > 6, "their clients come back");
    scene.finish("aggregators died", &servers, Most::ONCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_drop() {
    let world = World::unmigrated().await;
    let aggregators = [world.aggregator().await, world.aggregator().await];
    let servers = servers(&world, world.amqp_url(), 1);
    let mut proxies = Vec::new();
    for aggregator in &aggregators {
        proxies.push(Proxy::start(aggregator.address()).await);
    }
    let addresses: Vec<_> = proxies.iter().map(Proxy::address).collect();
    let scene = Scene::start(&addresses, world.amqp_url()).await;
    for (turn, proxy) in proxies.iter().cycle().take(8).enumerate() {
        if turn % 2 == 0 {
            proxy.reset();
        } else {
            // What is written meanwhile is lost with the connection.
            proxy.set(Toxic::HalfOpen);
            scene.goes_on(50, 0).await;
            proxy.set(Toxic::Refuse);
            scene.goes_on(50, 0).await;
            proxy.set(Toxic::None);
        }
        scene.goes_on(50, 20).await;
    }
    assert!(scene.welcomes() > 6, "they come back");
    scene.finish("sockets dropped", &servers, Most::ONCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_dies() {
    let world = World::private().await;
    let aggregators = [world.aggregator().await, world.aggregator().await];
    let servers = servers(&world, world.amqp_url(), 1);
    let mut away = aggregators[0].client("dora").await;
    let told = token(&away.done(consume("1", &["chat"])).await);
    drop(away);
    let scene = Scene::start(&addresses(&aggregators), world.amqp_url()).await;
    sleep(NAMES_SAVED).await;
    world.servers().run("kill", "rabbitmq").await;
    world.servers().run("start", "rabbitmq").await;
    scene.goes_on(200, 30).await;
    for follower in &scene.followers {
        assert_eq!(follower.welcomes(), (1, 0), "sockets stay: {:?}", follower.closes());
    }
    let most = Most { executions: 1, losses: 1 };
    let broadcasts = scene.finish("RabbitMQ died", &servers, most).await;
    // What was confirmed before is on its disk: at an aggregator that has heard nothing of it, too.
    let new = world.aggregator().await;
    let (mut dora, welcome) = back(&new, "dora", &told).await;
    assert_eq!((&welcome["resumed"], &welcome["missed"]), (&json!(true), &json!({})));
    let mut next = 0;
    while next < broadcasts {
        let packet = dora.expect("message").await;
        let number = packet["message"].as_u64().expect("a number");
        let is_repeat = number + 1 == next as u64;
        assert!(is_repeat || number == next as u64, "{number} after {next}");
        next += usize::from(!is_repeat);
    }
    assert!(world.rabbitmq().dead_letters().await.is_empty());
}
