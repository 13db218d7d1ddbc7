use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use platziverse_config::DatabaseConfig;
use platziverse_service::Drain;
use platziverse_store::partitions::{Policy, maintain, make_missing};
use platziverse_store::sweep::Candidate;
use platziverse_store::writer::Writer;
use platziverse_store::{Store, StoreError, commands, events, migrations, mom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

use crate::commands::command;
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

/// What has the server look whether a client is there, and the same with a time that no server
/// takes.
const WATCH: &[u8] = b"client_connection_check_interval = '2s'";
const REFUSED: &[u8] = b"client_connection_check_interval = '-1'";

/// Forwards connections to the server, which refuses to watch them, as one does whose system cannot
/// tell.
#[expect(clippy::disallowed_methods, reason = "tasks of the test's own network")]
async fn unwatched(config: &mut DatabaseConfig) -> Arc<AtomicU32> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let server = (config.host.clone(), config.port);
    config.host = "127.0.0.1".into();
    config.port = listener.local_addr().unwrap().port();
    let refused = Arc::new(AtomicU32::new(0));
    let count = refused.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let upstream = TcpStream::connect(server.clone()).await.unwrap();
            let (mut asking, mut answered) = client.into_split();
            let (mut answering, mut asked) = upstream.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut answering, &mut answered).await });
            let count = count.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok(read @ 1..) = asking.read(&mut buffer).await {
                    let sent = &mut buffer[..read];
                    if let Some(at) = sent.windows(WATCH.len()).position(|part| part == WATCH) {
                        sent[at..at + WATCH.len()].copy_from_slice(REFUSED);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    asked.write_all(sent).await.unwrap();
                }
            });
        }
    });
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_watch_its_clients_is_used_all_the_same() {
    with_database(async |mut config| {
        let refused = unwatched(&mut config).await;
        let mut writer = Writer::new(&config, "test");
        writer.write(&[message(1, "a")]).await.unwrap();
        assert_eq!(refused.load(Ordering::Relaxed), 1);
        Store::connect(&config, "test").await.unwrap().check_schema().await.unwrap();
        assert_eq!(
            refused.load(Ordering::Relaxed),
            3,
            "the pool's first connection, and the schema's"
        );
    })
    .await;
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

        let store = Store::connect(&config, "test").await.unwrap();
        cut.send_replace(true);
        let error = commands::begin(&store, &command(1), 1).await.unwrap_err();
        assert!(matches!(error, StoreError::Timeout { .. }), "{error}");
        let error = store.check().await.unwrap_err();
        assert!(matches!(error, StoreError::ConnectTimeout { .. }), "{error}");
        cut.send_replace(false);
        commands::begin(&store, &command(1), 1).await.unwrap();
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
        check((leader.lost(&["g"]), leader.end(&[]), leader.end_frozen()));
        check(writer.check());
        check(maintain(&config, "test", noon(), policy));
        check(make_missing(&config, "test", policy));
        check((migrations::run(&config), migrations::status(&config)));
        let (id, now) = (Uuid::nil(), noon());
        check(events::insert(&store, &[]));
        check((commands::begin(&store, &command(1), 1), commands::show(&store, id)));
        let step = commands::Step::to(commands::CommandState::Sent, now);
        check(commands::advance(&store, id, &step));
        check((commands::undelivered(&store, "yyy", None), commands::expire(&store, now)));
        check(commands::with_undelivered(&store, &["yyy"]));
        check(commands::list(&store, &commands::Filter::default(), 1));
        check(mom::delete_user(&store, id));
        let (kind, options) = (mom::ObjectKind::Queue, mom::ObjectOptions::default());
        check((
            mom::begin_create(&store, kind, "q", id, &options),
            mom::finish_create(&store, kind, "q"),
            mom::begin_delete(&store, kind, "q", id),
            mom::finish_delete(&store, kind, "q"),
            mom::begin_subscribe(&store, kind, "q", id, 1),
            mom::finish_unsubscribe(&store, kind, "q", id),
            mom::claim_unfinished(&store, Duration::ZERO, 1),
        ));
        check(mom::Lookup::start(&Drain::default(), &store).ask([0; 32], Some((kind, "q"))));
    })
    .await;
}
