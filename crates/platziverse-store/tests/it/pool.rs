use std::time::Duration;

use futures_util::future::join_all;
use platziverse_config::DatabaseConfig;
use platziverse_store::Store;
use platziverse_store::commands::{begin, show};

use crate::commands::command;
use crate::database::{client, one, with_database};

const NAME: &str = "pooled";

async fn connections(config: &DatabaseConfig) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pooled' \
                 AND datname = current_database()";
    one(config, count).await
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_more_connections_than_the_pool_may_have() {
    with_database(async |mut config| {
        config.pool_size = 3;
        let store = Store::connect(&config, NAME).await.unwrap();
        begin(&store, &command(0), 1).await.unwrap();
        assert_eq!(connections(&config).await, 1, "made when they are needed");
        let mut client = client(&config).await;
        let lock = client.transaction().await.unwrap();
        lock.batch_execute("LOCK TABLE commands").await.unwrap();
        let commands: Vec<_> = (1..=50).map(command).collect();
        let begun = join_all(commands.iter().map(|command| begin(&store, command, 1)));
        let look = async {
            while connections(&config).await < 3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(connections(&config).await, 3);
            lock.rollback().await.unwrap();
        };
        let (begun, ()) = tokio::join!(begun, look);
        assert!(begun.iter().all(Result::is_ok));
        assert_eq!(connections(&config).await, 3, "kept for the next");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_whose_connections_were_cut_connects_again() {
    with_database(async |config| {
        let store = Store::connect(&config, NAME).await.unwrap();
        begin(&store, &command(1), 1).await.unwrap();
        let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = 'pooled' AND datname = current_database()";
        assert_eq!(one::<i64>(&config, cut).await, 1);
        while connections(&config).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The cut is noticed by this question, or was before it.
        if let Err(error) = show(&store, command(1).id).await {
            assert!(error.is_transient(), "{error}");
        }
        assert!(show(&store, command(1).id).await.unwrap().is_some());
        store.check().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_given_up_leaves_its_place_to_the_next() {
    with_database(async |mut config| {
        config.pool_size = 1;
        config.statement_timeout = Duration::from_secs(1);
        let store = Store::connect(&config, NAME).await.unwrap();
        begin(&store, &command(1), 1).await.unwrap();
        let mut client = client(&config).await;
        let lock = client.transaction().await.unwrap();
        lock.batch_execute("LOCK TABLE commands").await.unwrap();
        let error = show(&store, command(1).id).await.unwrap_err();
        assert!(error.is_transient() && error.is_timeout(), "{error}");
        lock.rollback().await.unwrap();

        // One that is dropped half-way gives its place to the next.
        let lock = client.transaction().await.unwrap();
        lock.batch_execute("LOCK TABLE commands").await.unwrap();
        let dropped = tokio::time::timeout(Duration::from_millis(50), show(&store, command(1).id));
        assert!(dropped.await.is_err());
        store.check().await.unwrap();
    })
    .await;
}
