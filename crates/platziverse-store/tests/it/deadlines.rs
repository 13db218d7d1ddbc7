use std::sync::Arc;
use std::time::{Duration, Instant};

use platziverse_config::DatabaseConfig;
use platziverse_store::partitions::{Policy, maintain};
use platziverse_store::sweep::Candidate;
use platziverse_store::writer::Writer;
use platziverse_store::{Store, StoreError, migrations};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::database::with_database;
use crate::sightings::{message, noon};
use crate::sweep::leader;

/// Forwards connections to the server, and on a word swallows everything, as a network that was
/// cut does.
#[expect(clippy::disallowed_methods, reason = "tasks of the test's own network")]
async fn network(config: &mut DatabaseConfig) -> Arc<watch::Sender<bool>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let server = (config.host.clone(), config.port);
    config.host = "127.0.0.1".into();
    config.port = listener.local_addr().unwrap().port();
    let cut = Arc::new(watch::Sender::new(false));
    let word = cut.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (server, mut word) = (server.clone(), word.subscribe());
            tokio::spawn(async move {
                let mut upstream = TcpStream::connect(server).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut upstream) => return,
                    _ = word.wait_for(|cut| *cut) => {}
                }
                drop(upstream);
                word.wait_for(|cut| !*cut).await.unwrap();
            });
        }
    });
    cut
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_is_noticed_by_the_deadline() {
    with_database(async |mut config| {
        let cut = network(&mut config).await;
        config.statement_timeout = Duration::from_millis(200);
        config.connect_timeout = Duration::from_millis(1_000);
        let mut writer = Writer::new(&config, "test");
        writer.check().await.unwrap();
        cut.send_replace(true);
        let begun = Instant::now();
        let error = writer.write(&[message(1, "a")]).await.unwrap_err();
        assert!(matches!(error, StoreError::Timeout { .. }), "{error}");
        assert!(error.is_transient() && !writer.is_connected());
        let error = writer.write(&[message(1, "a")]).await.unwrap_err();
        assert!(matches!(error, StoreError::ConnectTimeout { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(15));
        assert!(writer.check().await.is_err());
        cut.send_replace(false);
        writer.write(&[message(1, "a")]).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_can_run_in_tasks() {
    fn check(_: impl Send) {}
    with_database(async |config| {
        let policy = Policy { ahead_days: 1, retention_days: 1 };
        let store = Store::connect(&config, "test").await.unwrap();
        let mut writer = Writer::new(&config, "test");
        let leader = leader(&config).await;
        check(Store::connect(&config, "test"));
        check((store.check(), store.check_schema(), store.status()));
        check(writer.write(&[]));
        check(Candidate::connect(&config, "test"));
        check((leader.lost(&["g"]), leader.end(&[])));
        check(writer.check());
        check(maintain(&config, "test", noon(), policy));
        check((migrations::run(&config), migrations::status(&config)));
    })
    .await;
}
