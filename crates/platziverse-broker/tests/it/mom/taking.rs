use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_has_a_message_as_soon_as_there_is_one() {
    let (_world, _context, mom) = started().await;
    let begun = Instant::now();
    assert_eq!(take(&mom, Duration::from_millis(300), AckMode::Auto).await, Ok(None));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let waiting = take(&mom, Duration::from_secs(30), AckMode::Auto);
    let publishing = async {
        sleep(Duration::from_millis(300)).await;
        mom.publish(post(3)).await.unwrap();
    };
    let (taken, ()) = tokio::join!(waiting, publishing);
    assert_eq!(taken.unwrap().as_ref().map(number), Some(3));
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    holds(&mom, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn takers_share_what_is_there_and_each_message_is_seen_once() {
    const MESSAGES: u32 = 2_000;
    let (world, _context, one) = started().await;
    let (_other_context, other) = another(&world, "host:2").await;
    let seen = AtomicUsize::new(0);
    let takers = (0..50).map(|taker| {
        let (mom, seen) = (if taker % 2 == 0 { &one } else { &other }, &seen);
        async move {
            let mut numbers = Vec::new();
            while seen.load(Ordering::Relaxed) < MESSAGES as usize {
                // Some ask, some wait.
                let wait = Duration::from_millis(if taker % 5 == 0 { 0 } else { 500 });
                if let Some(taken) = take(mom, wait, AckMode::Auto).await.unwrap() {
                    numbers.push(number(&taken));
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
            numbers
        }
    });
    let (numbers, ()) = tokio::join!(join_all(takers), fill(&one, MESSAGES));
    let mut times = BTreeMap::new();
    for number in numbers.iter().flatten() {
        *times.entry(*number).or_insert(0) += 1;
    }
    assert_eq!(times.len(), MESSAGES as usize);
    assert!(times.values().all(|times| *times == 1));
    assert!(numbers.iter().filter(|numbers| !numbers.is_empty()).count() > 25, "they share");
    holds(&one, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taker_that_is_dropped_loses_nothing() {
    const MESSAGES: u32 = 300;
    // Until RabbitMQ 4.3 what goes back counts as a delivery, and the first goes back again and again.
    let limits = MomQueueOptions { delivery_limit: 10_000, ..LIMITS };
    let world = World::new();
    let (_context, mom) = another(&world, "host:1").await;
    mom.declare_queue("jobs", &limits).await.unwrap();
    // At every moment: before it asks, while it waits, while a message is on its way to it.
    let dropping = async {
        for round in 0..600_u64 {
            let waiting = mom.take(QUEUE, Duration::from_secs(30), AckMode::Auto);
            let patience = Duration::from_micros(round * 37 % 5_000);
            if let Ok(taken) = tokio::time::timeout(patience, waiting).await {
                // It had one after all.
                mom.publish(post(number(&taken.unwrap().unwrap()))).await.unwrap();
            }
        }
    };
    let (_, ()) = soon("published", async { tokio::join!(dropping, fill(&mom, MESSAGES)) }).await;
    let mut numbers = Vec::new();
    while numbers.len() < MESSAGES as usize {
        numbers.push(number(&next_of(&mom, AckMode::Auto).await));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..MESSAGES).collect::<Vec<_>>());
    holds(&mom, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_for_somebody_who_has_gone_goes_back() {
    let (_world, _context, mom) = started().await;
    // Polled until the message is asked for, and never again.
    let mut waiting = Box::pin(mom.take(QUEUE, Duration::from_secs(30), AckMode::Auto));
    assert!((&mut waiting).now_or_never().is_none());
    sleep(Duration::from_millis(500)).await;
    fill(&mom, 1).await;
    holds(&mom, 0).await;
    drop(waiting);
    assert_eq!(number(&next_of(&mom, AckMode::Auto).await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_wait_cost_nothing_and_one_of_them_is_told_soon() {
    const QUEUES: u32 = 20;
    const WAITING: usize = 2_000;
    let (_world, _context, mom) = started().await;
    let names: Vec<String> = (0..QUEUES).map(|number| format!("q{number}")).collect();
    for name in &names {
        mom.declare_queue(name, &LIMITS).await.unwrap();
    }
    let found = AtomicUsize::new(0);
    let waiting = join_all((0..WAITING).map(|taker| {
        let (mom, found, queue) = (&mom, &found, queue_name(&names[taker % names.len()]));
        async move {
            let taken = mom.take(&queue, Duration::from_secs(20), AckMode::Auto).await.unwrap();
            found.fetch_add(usize::from(taken.is_some()), Ordering::Relaxed);
        }
    }));
    let publishing = async {
        // All of them wait by then.
        sleep(Duration::from_secs(8)).await;
        for round in 0..100 {
            let queue = queue_name(&names[round % names.len()]);
            let begun = Instant::now();
            mom.publish(post_to(vec![queue], 1)).await.unwrap();
            while found.load(Ordering::Relaxed) == round {
                tokio::task::yield_now().await;
                assert!(begun.elapsed() < Duration::from_secs(15), "nobody was told");
            }
        }
    };
    soon("told", async { tokio::join!(waiting, publishing) }).await;
    assert_eq!(found.load(Ordering::Relaxed), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_is_known_to_all_who_wait_at_once() {
    let (_world, _context, mom) = started().await;
    let nowhere = mom.take("mom.queue.none", Duration::ZERO, AckMode::Auto).await;
    assert_eq!(nowhere, Err(MomError::NoSuchQueue));
    mom.declare_queue("other", &LIMITS).await.unwrap();
    let other = queue_name("other");
    let others = mom.take(&other, Duration::from_secs(30), AckMode::Auto);
    let waiting = join_all((0..50).map(|_| take(&mom, Duration::from_secs(30), AckMode::Auto)));
    let deleting = async {
        sleep(Duration::from_secs(1)).await;
        let begun = Instant::now();
        mom.delete_queue("jobs").await.unwrap();
        begun
    };
    let told = async {
        let (outcomes, begun) = tokio::join!(waiting, deleting);
        assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
        mom.publish(post_to(vec![other.clone()], 4)).await.unwrap();
        outcomes
    };
    let (outcomes, others) = tokio::join!(told, others);
    assert!(outcomes.iter().all(|outcome| *outcome == Err(MomError::NoSuchQueue)), "{outcomes:?}");
    assert_eq!(others.unwrap().as_ref().map(number), Some(4), "it is not harmed");
    for outcome in [mom.count(QUEUE).await, mom.purge(QUEUE).await] {
        assert_eq!(outcome, Err(MomError::NoSuchQueue));
    }
    assert_eq!(mom.peek(QUEUE, 1).await, Err(MomError::NoSuchQueue));
    // Made again, it is as any other.
    mom.declare_queue("jobs", &LIMITS).await.unwrap();
    fill(&mom, 1).await;
    assert_eq!(number(&next_of(&mom, AckMode::Auto).await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_leaves_all_as_it_was() {
    let (_world, _context, mom) = started().await;
    fill(&mom, 10).await;
    let numbers = |looked: Vec<platziverse_broker::mom::MomMessage>| -> Vec<String> {
        looked.iter().map(|one| String::from_utf8_lossy(&one.body).into_owned()).collect()
    };
    for count in [3, 1, 5] {
        let looked = numbers(mom.peek(QUEUE, count).await.unwrap());
        let expected: Vec<_> = (0..count).map(|number| number.to_string()).collect();
        assert_eq!(looked, expected);
        holds(&mom, 10).await;
    }
    assert_eq!(mom.peek(QUEUE, 100).await.unwrap().len(), 10);
    holds(&mom, 10).await;
    for expected in 0..10 {
        assert_eq!(number(&take_now(&mom).await.unwrap()), expected);
    }
    assert_eq!(mom.peek(QUEUE, 1).await, Ok(Vec::new()));
    // What is too much at once is not looked at.
    for number in 0..5 {
        mom.publish(Post { body: Bytes::from(vec![0; 2 << 20]), ..post(number) }).await.unwrap();
    }
    assert_eq!(mom.peek(QUEUE, 5).await.unwrap().len(), 2);
    assert_eq!(mom.purge(QUEUE).await, Ok(5));
}
