//! A RabbitMQ cluster of three, of which each node is killed in turn, behind aggregators.

use std::time::Duration;

use platziverse_testkit::{Proxy, World};
use tokio::time::sleep;

use crate::aggregator_scene::{Most, Scene, addresses, servers};

const NODES: usize = 3;
/// Until all nodes have written which queues there are.
const NAMES_SAVED: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_dies() {
    let world = World::cluster().await;
    let node = |number: usize| world.servers().address(&format!("AMQP_URL_{}", number % NODES + 1));
    // Each leads to another node: to two aggregators, and to the servers.
    let mut balancers = Vec::new();
    for number in 0..NODES {
        balancers.push(Proxy::start(node(number)).await);
    }
    let url = |number: usize| world.amqp_url_at(balancers[number].address());
    let mut aggregators = Vec::new();
    for number in 0..2 {
        let url = url(number);
        aggregators.push(world.aggregator_with(&[("PLATZIVERSE_AMQP__URL", &url)]).await);
    }
    let servers = servers(&world, &url(2), 1);
    let scene = Scene::start(&addresses(&aggregators), &url(2)).await;
    sleep(NAMES_SAVED).await;
    for doomed in 0..NODES {
        let name = format!("rabbitmq-{}", doomed + 1);
        world.servers().run("kill", &name).await;
        for (number, balancer) in balancers.iter().enumerate() {
            let other = if number == doomed { number + 1 } else { number };
            balancer.retarget(node(other));
        }
        scene.goes_on(200, 30).await;
        // Nothing needs the last one any more.
        if doomed + 1 < NODES {
            world.servers().run("start", &name).await;
        }
    }
    for follower in &scene.followers {
        assert_eq!(follower.welcomes(), (1, 0), "sockets stay: {:?}", follower.closes());
    }
    scene.finish("each node died", &servers, Most { executions: 1, losses: NODES }).await;
    assert!(world.rabbitmq().dead_letters().await.is_empty());
}
