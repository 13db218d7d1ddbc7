use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use platziverse_config::DatabaseConfig;
use platziverse_store::writer::Writer;
use tokio_postgres::{Client, CopyInSink};

use crate::database::{client, one, with_database};
use crate::sightings::message;
use crate::sweep::leader;

const COPY: &str = "COPY metrics (agent_id, type, value, text_value, timestamp, received_at, \
    message_id, ordinal) FROM STDIN BINARY";

/// A session with short timeouts that holds an agent, and has begun a COPY of which nothing comes.
async fn stuck(
    config: &DatabaseConfig,
    uuid: &str,
    copy: &str,
) -> (Client, Pin<Box<CopyInSink<Bytes>>>) {
    let client = client(config).await;
    let begin = format!(
        "SET application_name = '{uuid}'; SET statement_timeout = '200ms'; \
         SET idle_in_transaction_session_timeout = '500ms'; CREATE TEMPORARY TABLE t (i int); \
         BEGIN; INSERT INTO agents (uuid, connected, session, gateway) \
         VALUES ('{uuid}', false, gen_random_uuid(), 'g')"
    );
    client.batch_execute(&begin).await.unwrap();
    let sink = client.copy_in(copy).await.unwrap();
    (client, Box::pin(sink))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_frozen_in_a_copy_is_ended() {
    with_database(async |mut config| {
        config.statement_timeout = Duration::from_millis(300);
        let leader = leader(&config).await;
        let begun = Instant::now();
        let _frozen = stuck(&config, "frozen", COPY).await;
        let _other = stuck(&config, "other", "COPY t FROM STDIN").await;
        let mut writer = Writer::new(&config, "test");
        let mut refused = 0;
        let ended = loop {
            // No timeout of the server's ends the session that holds the agent.
            let error = writer.write(&[message(1, "frozen")]).await.unwrap_err();
            assert!(error.is_timeout(), "{error}");
            refused += 1;
            let ended = leader.end_frozen().await.unwrap();
            if !ended.is_empty() {
                break ended;
            }
            assert!(begun.elapsed() < Duration::from_secs(20));
        };
        assert!(begun.elapsed() > Duration::from_millis(5_300), "{:?}", begun.elapsed());
        assert!(refused > 2, "{refused}");
        let names: Vec<&str> = ended.iter().map(|one| one.application_name.as_str()).collect();
        assert_eq!(names, ["frozen"]);
        assert_eq!(writer.write(&[message(1, "frozen")]).await.unwrap().stored, 1);
        let goes_on = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'other' \
                       AND datname = current_database() AND wait_event = 'ClientRead'";
        assert_eq!(one::<i64>(&config, goes_on).await, 1, "who copies elsewhere is left alone");
        assert_eq!(leader.end_frozen().await.unwrap(), []);
    })
    .await;
}
