use std::time::Duration;

use platziverse_broker::{BrokerError, Publisher};
use platziverse_config::{AmqpConfig, IngestConfig, Secret};
use platziverse_service::chain;

use crate::world::*;

/// Where something that is not RabbitMQ listens, or nothing.
fn elsewhere(port: u16) -> AmqpConfig {
    let (host, tls) = ("127.0.0.1".to_owned(), false);
    AmqpConfig { host, port, tls, ..World::new().amqp.clone() }
}

async fn refused(amqp: AmqpConfig) -> String {
    let world = World::new();
    let mut context = world.context(&IngestConfig::default());
    context.amqp = amqp;
    let started: Result<TestPublisher, BrokerError> = Publisher::start(&context, OPTIONS).await;
    chain(&started.unwrap_err())
}

fn check(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials() {
    let world = World::new();
    let password = Secret::new("not-the-password");
    let text = refused(AmqpConfig { password, ..world.amqp.clone() }).await;
    check(&text, &["cannot connect to RabbitMQ at", "amqp.password", "ACCESS-REFUSED"]);
    assert!(!text.contains("not-the-password"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_vhost() {
    let world = World::new();
    let text = refused(AmqpConfig { vhost: "nowhere".to_owned(), ..world.amqp.clone() }).await;
    check(&text, &["cannot connect to RabbitMQ at", "amqp.vhost", "\"nowhere\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens() {
    let text = refused(elsewhere(1)).await;
    check(&text, &["cannot connect to RabbitMQ at 127.0.0.1:1/", "amqp.port", "refused"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_listens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect_timeout = Duration::from_millis(300);
    let amqp = AmqpConfig { connect_timeout, ..elsewhere(port) };
    check(&refused(amqp).await, &["no answer within 300ms", "amqp.connect_timeout"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_too_old() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let old = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let table = b"\x07versionS\0\0\0\x063.8.19";
        let mut frame = vec![1, 0, 0, 0, 0, 0, 0];
        frame.extend_from_slice(&[0, 10, 0, 10, 0, 9, 0, 0, 0, u8::try_from(table.len()).unwrap()]);
        frame.extend_from_slice(table);
        frame[6] = u8::try_from(frame.len() - 7).unwrap();
        stream.write_all(&frame).await.unwrap();
        std::future::pending::<()>().await;
    };
    let text = tokio::select! {
        text = refused(elsewhere(port)) => text,
        () = old => unreachable!(),
    };
    check(&text, &["is version 3.8.19; version 3.10 or newer is needed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_declared_with_other_arguments() {
    let world = World::new();
    let operator = world.operator().await;
    let context = world.context(&IngestConfig::default());
    operator.declare(&context.topology).await.unwrap();
    operator.close().await;
    let context = world.context(&IngestConfig { queue_length_max: 7, ..IngestConfig::default() });
    let started: Result<TestPublisher, BrokerError> = Publisher::start(&context, OPTIONS).await;
    let text = chain(&started.unwrap_err());
    let parts = ["the queue platziverse.ingest exists", "x-max-length", "empty and delete"];
    check(&text, &parts);
}
