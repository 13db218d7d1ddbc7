use futures_util::future::join_all;
use platziverse_broker::dead;
use platziverse_broker::mom::Settle;
use tokio::time::{Instant, sleep};

use super::*;

const SHORT: AckMode = AckMode::Manual { lease: Duration::from_millis(500) };

async fn lease(mom: &Mom, mode: AckMode) -> (u32, String) {
    let taken = next_of(mom, mode).await;
    (number(&taken), taken.lease.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_settled_once() {
    let (_world, _context, mom) = started().await;
    fill(&mom, 2).await;
    let (first, one) = lease(&mom, MANUAL).await;
    let (second, two) = lease(&mom, MANUAL).await;
    assert_eq!((first, second), (0, 1));
    assert_eq!(take_now(&mom).await, None, "both are held");
    mom.settle(&one, Settle::Ack).await.unwrap();
    mom.settle(&two, Settle::Nack).await.unwrap();
    for how in [Settle::Ack, Settle::Nack, Settle::Extend(Duration::from_secs(1))] {
        for lease in [&one, &two] {
            assert_eq!(mom.settle(lease, how).await, Err(MomError::LeaseGone));
        }
    }
    let again = next_of(&mom, AckMode::Auto).await;
    assert_eq!((number(&again), again.message.redelivered), (1, true));
    assert_eq!(take_now(&mom).await, None);
    for nonsense in ["", "nonsense", "a.b.c", "host:1.00000000000000000000000000000001"] {
        assert_eq!(mom.settle(nonsense, Settle::Ack).await, Err(MomError::LeaseGone));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_gives_the_message_back() {
    let (_world, _context, mom) = started().await;
    fill(&mom, 1).await;
    let (_, first) = lease(&mom, SHORT).await;
    let begun = Instant::now();
    let (_, second) = lease(&mom, SHORT).await;
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(mom.settle(&first, Settle::Ack).await, Err(MomError::LeaseGone));
    // Extended again and again, it lasts.
    for _ in 0..4 {
        mom.settle(&second, Settle::Extend(Duration::from_secs(1))).await.unwrap();
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(take_now(&mom).await, None);
    mom.settle(&second, Settle::Ack).await.unwrap();
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(take_now(&mom).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_lease_is_longer_than_rabbitmq_has_patience() {
    const LONG: Duration = Duration::from_secs(26 * 60);
    let (_world, _context, mom) = started().await;
    fill(&mom, 1).await;
    let refused = take(&mom, Duration::ZERO, AckMode::Manual { lease: LONG }).await;
    assert!(matches!(refused, Err(MomError::TooMany(_))), "{refused:?}");
    let (_, held) = lease(&mom, MANUAL).await;
    for length in [LONG, Duration::MAX] {
        let refused = mom.settle(&held, Settle::Extend(length)).await;
        assert!(matches!(refused, Err(MomError::TooMany(_))), "{refused:?}");
    }
    mom.settle(&held, Settle::Ack).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn any_server_settles_what_another_has_leased() {
    const MESSAGES: u32 = 300;
    let (world, _context, one) = started().await;
    let (other_context, other) = another(&world, "host:2").await;
    fill(&one, MESSAGES).await;
    let mut leases = Vec::new();
    for _ in 0..MESSAGES {
        leases.push(lease(&one, MANUAL).await.1);
    }
    let acks = leases[2..].iter().map(|lease| other.settle(lease, Settle::Ack));
    let settled = soon("settled", join_all(acks)).await;
    assert!(settled.iter().all(Result::is_ok), "{settled:?}");

    other.settle(&leases[0], Settle::Extend(Duration::from_secs(90))).await.unwrap();
    let long = other.settle(&leases[0], Settle::Extend(Duration::from_secs(3_000))).await;
    assert!(matches!(long, Err(MomError::TooMany(_))), "{long:?}");
    other.settle(&leases[0], Settle::Nack).await.unwrap();
    assert_eq!(other.settle(&leases[0], Settle::Ack).await, Err(MomError::LeaseGone));
    assert_eq!(number(&next_of(&other, AckMode::Auto).await), 0);

    // A server that is gone has no leases, and that is known at once.
    let (_, held) = {
        fill(&one, 1).await;
        lease(&other, MANUAL).await
    };
    drop(other);
    other_context.drain.request();
    soon("its end", other_context.drain.finished()).await;
    let begun = Instant::now();
    assert_eq!(one.settle(&held, Settle::Ack).await, Err(MomError::LeaseGone));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let again = next_of(&one, AckMode::Auto).await;
    assert_eq!((number(&again), again.message.redelivered), (0, true));
    one.settle(&leases[1], Settle::Ack).await.unwrap();
    holds(&one, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_too_often_becomes_a_dead_letter() {
    let (world, _context, mom) = started().await;
    mom.declare_queue("brief", &MomQueueOptions { delivery_limit: 2, ..LIMITS }).await.unwrap();
    let queue = queue_name("brief");
    mom.publish(post_to(vec![queue.clone()], 9)).await.unwrap();
    for delivered in 0..3 {
        let mode = if delivered == 1 { SHORT } else { MANUAL };
        let taken = mom.take(&queue, Duration::from_secs(30), mode).await.unwrap().unwrap();
        assert_eq!(taken.message.redelivered, delivered > 0);
        if mode == MANUAL {
            mom.settle(&taken.lease.unwrap(), Settle::Nack).await.unwrap();
        }
    }
    let operator = world.operator().await;
    let one = async || dead::count(&operator).await.unwrap() == 1;
    eventually("dead", one).await;
    let dead = dead::list(&operator, &dead::Selection::All, 10).await.unwrap();
    assert_eq!((dead[0].reason.as_str(), dead[0].origin_key.as_str()), ("delivery_limit", &*queue));
    assert_eq!(mom.take(&queue, Duration::ZERO, AckMode::Auto).await, Ok(None));
    // Sent back, it has all its deliveries again.
    assert_eq!(dead::replay(&operator, &dead::Selection::All).await.unwrap().count, 1);
    let taken = mom.take(&queue, Duration::from_secs(30), AckMode::Auto).await.unwrap().unwrap();
    assert_eq!((number(&taken), taken.message.redelivered), (9, false));
}
