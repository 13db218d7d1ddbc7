//! A queue whose jobs are done although a worker fails, and a topic that tells everybody.
//!
//! `cargo run --example work_queue [URL]`

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, stream};
use platziverse_client::{Client, Code, NewMessage, Options};
use uuid::Uuid;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "http://127.0.0.1:50052".to_owned());
    work(&url).await?;
    tell(&url).await
}

/// A client of a new user.
async fn user(url: &str) -> anyhow::Result<Client> {
    let user = Client::builder(url).build()?.register().await?;
    Ok(Client::builder(url).key(user.key).build()?)
}

/// Publishes three jobs and does them; the second one fails at first.
async fn work(url: &str) -> anyhow::Result<()> {
    let client = user(url).await?;
    let jobs = client.queue(format!("jobs-{}", Uuid::new_v4()));
    jobs.create(&Options { delivery_limit: Some(5), ..Options::default() }).await?;
    let messages =
        ["sweep", "wash", "cook"].map(|job| NewMessage::from(job).header("day", "today"));
    let published: Vec<_> = jobs.publish_all(stream::iter(messages)).collect().await;
    ensure!(published.iter().all(Result::is_ok), "{published:?}");

    let mut done = Vec::new();
    let mut deliveries = jobs.consume(1);
    while done.len() < 3 {
        let delivery = deliveries.next().await.context("a job is lost")??;
        let job = String::from_utf8_lossy(&delivery.message.body).into_owned();
        if job == "wash" && !delivery.message.redelivered {
            println!("{job} is given back: no water");
            delivery.nack()?;
            continue;
        }
        println!("done: {job}");
        done.push(job);
        delivery.ack()?;
    }
    // Until then, an acknowledgement may be on its way.
    deliveries.close().await?;
    ensure!(jobs.take(Duration::ZERO).await?.is_none(), "a job was done twice");
    jobs.delete().await?;
    client.delete_user().await?;
    Ok(())
}

/// Publishes to a topic: a subscriber gets the message, its publisher does not.
async fn tell(url: &str) -> anyhow::Result<()> {
    let (writer, reader) = (user(url).await?, user(url).await?);
    let news = writer.topic(format!("news-{}", Uuid::new_v4()));
    news.create(&Options::default()).await?;
    let heard = reader.topic(news.name());
    heard.subscribe().await?;
    let published = news.publish("Llueve en Bogotá").await?;
    ensure!(published.receivers == 1, "{published:?}");

    let lent = heard.lend(Duration::from_secs(10), Duration::from_secs(30)).await?;
    let lent = lent.context("the message is lost")?;
    ensure!(lent.message.id == Some(published.id), "{lent:?}");
    lent.extend(Duration::from_secs(60)).await?;
    println!("heard: {}", String::from_utf8_lossy(&lent.message.body));
    lent.ack().await?;
    ensure!(news.take(Duration::ZERO).await?.is_none(), "the publisher got it");

    let refused = heard.delete().await.err().context("it was deleted by somebody else")?;
    ensure!(refused.code() == Some(&Code::NotCreator), "{refused}");
    println!("refused: {refused}");
    heard.unsubscribe().await?;
    news.delete().await?;
    Ok(())
}
