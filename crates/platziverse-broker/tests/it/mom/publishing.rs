use futures_util::future::join_all;
use platziverse_broker::dead::{self, Selection};
use platziverse_broker::mom::{subscriber_queue, topic_exchange};
use platziverse_broker::topology;
use tokio::time::Instant;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_taken_as_it_was() {
    let (_world, _context, mom) = started().await;
    let post = Post {
        headers: vec![("colour".to_owned(), "blue".to_owned()), ("x".to_owned(), "ñ".to_owned())],
        body: Bytes::from_static(&[0, 255, 10]),
        content_type: "image/png".to_owned(),
        timestamp: Timestamp::from_millis(1_780_000_000_123).unwrap(),
        ..post(0)
    };
    mom.publish(post.clone()).await.unwrap();
    let message = take_now(&mom).await.unwrap().message;
    assert_eq!((message.id, message.publisher), (Some(post.id), Some(post.user)));
    assert_eq!(message.content_type, post.content_type);
    assert_eq!(message.headers, post.headers);
    assert_eq!(message.body, post.body);
    assert_eq!(message.timestamp, Some(post.timestamp));
    assert!(!message.redelivered);
    assert_eq!(take_now(&mom).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_topic_reaches_every_queue_that_it_names() {
    // More than go in one AMQP message, with names that are long.
    const SUBSCRIBERS: u128 = 100;
    let (world, _context, mom) = started().await;
    let topic = "ñandú ".repeat(16).trim().to_owned();
    mom.declare_topic(&topic).await.unwrap();
    let users: Vec<Uuid> = (0..SUBSCRIBERS).map(Uuid::from_u128).collect();
    let declaring = users.iter().map(|user| mom.declare_subscription(&topic, *user, &LIMITS));
    for declared in join_all(declaring).await {
        declared.unwrap();
    }
    let queues: Vec<_> = users.iter().map(|user| subscriber_queue(&topic, *user)).collect();
    let others = queues[1..].to_vec();
    soon("confirmed", mom.publish(post_to(others.clone(), 7))).await.unwrap();
    for queue in &others {
        let taken = mom.take(queue, Duration::ZERO, AckMode::Auto).await.unwrap();
        assert_eq!(taken.as_ref().map(number), Some(7), "{queue}");
        assert_eq!(mom.count(queue).await, Ok(0));
    }
    assert_eq!(mom.count(&queues[0]).await, Ok(0), "nobody named it");

    // Whoever speaks AMQP publishes to the exchange, and each subscriber has it.
    let path =
        format!("exchanges/{}/{}/publish", world.amqp.vhost, encoded(&topic_exchange(&topic)));
    let body = r#"{"properties":{},"routing_key":"any","payload":"8","payload_encoding":"string"}"#;
    world.call("POST", &path, body);
    let taken = mom.take(&queues[0], Duration::from_secs(30), AckMode::Auto).await.unwrap();
    assert_eq!(taken.as_ref().map(number), Some(8));

    mom.delete_subscription(&topic, users[0]).await.unwrap();
    mom.delete_subscription(&topic, users[0]).await.unwrap();
    mom.delete_topic(&topic).await.unwrap();
    mom.delete_topic(&topic).await.unwrap();
    let again = mom.declare_subscription(&topic, users[0], &LIMITS).await;
    assert_eq!(again, Err(MomError::NoSuchQueue));
}

fn encoded(name: &str) -> String {
    name.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_receivers_there_is_nothing_to_wait_for() {
    let (_world, _context, mom) = started().await;
    assert_eq!(mom.publish(post_to(Vec::new(), 1)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_so_at_once_and_holds_nobody_up() {
    let (_world, _context, mom) = started().await;
    let limits = MomQueueOptions { max_length: 3, ..LIMITS };
    mom.declare_queue("small", &limits).await.unwrap();
    let to_small = |number| post_to(vec![queue_name("small")], number);
    // RabbitMQ lets a few more in before it refuses.
    let begun = Instant::now();
    let refused = async {
        let mut accepted = 0;
        while mom.publish(to_small(accepted)).await != Err(MomError::Full) {
            accepted += 1;
        }
        accepted
    };
    let accepted = soon("full", refused).await;
    let crowd = join_all((0..500).map(|number| mom.publish(to_small(number))));
    let others = join_all((0..500).map(|number| mom.publish(post(number))));
    let (crowd, others) = soon("answered", async { tokio::join!(crowd, others) }).await;
    assert!(crowd.iter().all(|outcome| *outcome == Err(MomError::Full)), "{crowd:?}");
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    assert_eq!(mom.count(&queue_name("small")).await, Ok(accepted));

    // Of several queues, one is enough.
    let both = vec![QUEUE.to_owned(), queue_name("small")];
    assert_eq!(mom.publish(post_to(both, 1)).await, Err(MomError::Full));

    assert_eq!(mom.purge(&queue_name("small")).await, Ok(accepted));
    let room = async || mom.publish(to_small(1)).await.is_ok();
    eventually("room again", room).await;
}

/// RabbitMQ may end the connection of whoever publishes to a queue that goes: then what was on its way
/// to others is there twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_goes_disturbs_nobody() {
    const TIMES: u32 = 60;
    let (_world, _context, mom) = started().await;
    // The first message for a queue may go twice: nobody knows yet that it has a leader.
    mom.publish(post(TIMES)).await.unwrap();
    for number in 0..TIMES {
        let name = format!("brief {number}");
        mom.declare_queue(&name, &LIMITS).await.unwrap();
        // At any moment of its end.
        let wait = Duration::from_millis(u64::from(number % 30));
        let publishing = async {
            tokio::time::sleep(wait).await;
            mom.publish(post_to(vec![QUEUE.to_owned(), queue_name(&name)], number)).await
        };
        let (published, deleted) = tokio::join!(publishing, mom.delete_queue(&name));
        deleted.unwrap();
        published.unwrap();
    }
    assert_eq!(mom.count(QUEUE).await, Ok(TIMES + 1), "each of them once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_gone_leaves_a_dead_letter() {
    let (world, _context, mom) = started().await;
    mom.delete_queue("jobs").await.unwrap();
    mom.delete_queue("jobs").await.unwrap();
    let post = post(5);
    mom.publish(post.clone()).await.unwrap();
    let operator = world.operator().await;
    let dead = dead::list(&operator, &Selection::All, 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].reason, "unroutable");
    mom.declare_queue("jobs", &LIMITS).await.unwrap();
    assert_eq!(dead::replay(&operator, &Selection::All).await.unwrap().count, 1);
    let message = next_of(&mom, AckMode::Auto).await.message;
    assert_eq!((message.id, message.body), (Some(post.id), post.body));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_at_which_the_channel_is_closed_takes_no_other_down() {
    // Beyond the largest message of RabbitMQ 3.10; 4 takes less.
    const TOO_LARGE: usize = (128 << 20) + 1;
    let world = World::new();
    let mut settings = MomSettings::new("host:1");
    settings.in_flight_bytes = 2 << 30;
    settings.publish_timeout = Duration::from_secs(60);
    let (_context, mom) = start_with(&world, settings).await;
    mom.declare_queue("jobs", &LIMITS).await.unwrap();
    let large = Post { body: Bytes::from(vec![0; TOO_LARGE]), ..post(0) };
    let mut posts: Vec<Post> = (0..400).map(post).collect();
    posts.insert(200, large);
    let outcomes = join_all(posts.into_iter().map(|post| mom.publish(post)));
    let mut outcomes = soon("answered", outcomes).await;
    let refused = outcomes.remove(200);
    assert!(matches!(&refused, Err(MomError::TooMany(why)) if why.contains("size")), "{refused:?}");
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    fill(&mom, 10).await;
    assert!(mom.count(QUEUE).await.unwrap() >= 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_amqp_cannot_carry_is_refused_at_once() {
    let (_world, _context, mom) = started().await;
    let content_type = "t".repeat(256);
    let outcome = mom.publish(Post { content_type, ..post(1) }).await;
    assert!(matches!(outcome, Err(MomError::TooMany(_))), "{outcome:?}");
    let headers = (0..60).map(|number| (number.to_string(), "v".repeat(1000))).collect();
    mom.publish(Post { headers, ..post(2) }).await.unwrap();
    assert_eq!(next_of(&mom, AckMode::Auto).await.message.headers.len(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_there_already_stays_as_it_is() {
    let (_world, _context, mom) = started().await;
    fill(&mom, 3).await;
    mom.declare_queue("jobs", &LIMITS).await.unwrap();
    let other = MomQueueOptions { max_length: 7, ..LIMITS };
    mom.declare_queue("jobs", &other).await.unwrap();
    holds(&mom, 3).await;
    let none = MomQueueOptions { max_length: 0, ..LIMITS };
    let refused = mom.declare_queue("none", &none).await;
    assert!(matches!(refused, Err(MomError::TooMany(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_name_the_queue_in_which_they_died() {
    let (world, _context, mom) = started().await;
    mom.declare_topic("news").await.unwrap();
    let (slow, good) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let brief = MomQueueOptions { message_ttl: Some(Duration::from_millis(100)), ..LIMITS };
    mom.declare_subscription("news", slow, &brief).await.unwrap();
    mom.declare_subscription("news", good, &LIMITS).await.unwrap();
    let queues = [good, slow].map(|user| subscriber_queue("news", user));
    mom.publish(post_to(queues.to_vec(), 1)).await.unwrap();
    let operator = world.operator().await;
    let one = async || dead::count(&operator).await.unwrap() == 1;
    eventually("dead", one).await;
    let dead = dead::list(&operator, &Selection::All, 10).await.unwrap();
    assert_eq!(dead[0].reason, "expired");
    assert_eq!(
        (&dead[0].origin_exchange, &dead[0].origin_key),
        (&topology::MOM.to_owned(), &queues[1])
    );
    assert_eq!(dead::replay(&operator, &Selection::All).await.unwrap().count, 1);
    let again = mom.take(&queues[1], Duration::from_secs(30), AckMode::Auto).await.unwrap();
    // It may have expired once more.
    assert!(again.is_none_or(|taken| number(&taken) == 1));
    assert_eq!(mom.count(&queues[0]).await, Ok(1), "nobody else has it twice");
}
