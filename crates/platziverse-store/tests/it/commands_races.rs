//! Several workers and one command.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use platziverse_store::commands::{CommandState, NewCommand, begin, expire};
use platziverse_store::{Store, StoreError};

use crate::commands::{command, shown, tell};
use crate::database::{client, with_database};
use crate::sightings::noon;

use CommandState::{Delivered, Failed, Queued, Sent, Succeeded, TimedOut};

const ROUNDS: u128 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn two_that_begin_one_command_see_the_same() {
    with_database(async |config| {
        let store = Store::connect(&config, "one").await.unwrap();
        let other = Store::connect(&config, "two").await.unwrap();
        for number in 0..ROUNDS {
            let new = command(number);
            let (first, second) = tokio::join!(begin(&store, &new, 1), begin(&other, &new, 2));
            let (first, second) = (first.unwrap(), second.unwrap());
            assert_eq!((first.state, second.state), (Queued, Queued));
            assert_eq!(second.attempts, 2);
            assert_eq!(shown(&store, number).await.attempts, 2);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_ends_one_is_final() {
    with_database(async |config| {
        let store = Store::connect(&config, "one").await.unwrap();
        let other = Store::connect(&config, "two").await.unwrap();
        for number in 0..ROUNDS {
            let new = NewCommand { expires_at: Some(noon()), ..command(number) };
            begin(&store, &new, 1).await.unwrap();
            let (succeeded, failed, expired) = tokio::join!(
                tell(&store, number, Succeeded),
                tell(&other, number, Failed),
                expire(&other, noon()),
            );
            let timed_out = !expired.unwrap().is_empty();
            let command = shown(&store, number).await;
            let ends = [(succeeded, Succeeded), (failed, Failed), (timed_out, TimedOut)];
            let mut won = ends.into_iter().filter(|(changed, _)| *changed);
            assert_eq!(won.next().map(|(_, end)| end), Some(command.state));
            assert_eq!(won.next(), None);
            assert_eq!(command.result.is_some(), succeeded);
            assert_eq!(command.error.is_some(), failed);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn news_that_come_at_once_all_count() {
    with_database(async |config| {
        let store = Store::connect(&config, "one").await.unwrap();
        let other = Store::connect(&config, "two").await.unwrap();
        for number in 0..ROUNDS {
            begin(&store, &command(number), 1).await.unwrap();
            let news = [Succeeded, Delivered, Sent, Queued]
                .into_iter()
                .flat_map(|to| [tell(&store, number, to), tell(&other, number, to)]);
            let changes = join_all(news).await.into_iter().filter(|changed| *changed).count();
            assert_eq!(changes, 3);
            let command = shown(&store, number).await;
            assert_eq!(command.state, Succeeded);
            assert!(command.sent_at.is_some() && command.delivered_at.is_some());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_end_what_timed_out_share_it() {
    with_database(async |config| {
        let many = "INSERT INTO commands (id, name, payload, state, attempts, created_at, \
            updated_at, expires_at) SELECT gen_random_uuid(), 'n', '1', 'sent', 1, now(), now(), \
            '2026-03-01T12:00:00Z' FROM generate_series(1, 5000)";
        client(&config).await.batch_execute(many).await.unwrap();
        let end_all = async |name: &'static str| {
            let store = Store::connect(&config, name).await?;
            let mut ended = Vec::new();
            loop {
                match expire(&store, noon()).await? {
                    none if none.is_empty() => return Ok::<_, StoreError>(ended),
                    some => ended.extend(some),
                }
            }
        };
        let ended = join_all(["one", "two", "three"].map(end_all)).await;
        let ended: Vec<_> = ended.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(ended.len(), 5_000);
        assert_eq!(ended.iter().collect::<HashSet<_>>().len(), 5_000, "each once");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_holds_does_not_keep_the_rest_from_timing_out() {
    with_database(async |config| {
        let store = Store::connect(&config, "test").await.unwrap();
        for number in 1..=2 {
            let new = NewCommand { expires_at: Some(noon()), ..command(number) };
            begin(&store, &new, 1).await.unwrap();
        }
        let mut client = client(&config).await;
        let held = client.transaction().await.unwrap();
        let lock = "SELECT 1 FROM commands WHERE id = '00000000-0000-0000-0000-000000000001' \
                    FOR UPDATE";
        held.batch_execute(lock).await.unwrap();
        let expired = tokio::time::timeout(Duration::from_secs(5), expire(&store, noon())).await;
        assert_eq!(expired.unwrap().unwrap(), [command(2).id]);
        held.rollback().await.unwrap();
        assert_eq!(expire(&store, noon()).await.unwrap(), [command(1).id]);
    })
    .await;
}
