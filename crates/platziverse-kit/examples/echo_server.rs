//! A server that answers with what it was asked, and tells everybody what somebody says.
//!
//! `cargo run -p platziverse-kit --example echo_server -- --channel chat`

use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use platziverse_kit::{Answer, Kind, Options, Sender, Server, Work};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Parser)]
#[command(about = "Answers with what it was asked, and tells everybody what somebody says")]
struct Args {
    /// Where RabbitMQ is
    #[arg(long, default_value = "amqp://guest:guest@127.0.0.1:5672/")]
    url: String,
    /// The channel that is served
    #[arg(long, default_value = "chat")]
    channel: String,
    /// How long the work takes
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Messages that are held at a time
    #[arg(long, default_value_t = 20)]
    prefetch: u16,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Args { url, channel, delay, prefetch } = Args::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let options = Options::new(&url)?.name("echo").channels([channel.as_str()]);
    let server = Server::connect(options.prefetch(prefetch)).await?;
    let sender = server.sender();
    let serving = server.serve(&channel, move |work| {
        let sender = sender.clone();
        async move {
            let message: Value = work.json().context("the message is no JSON")?;
            println!("works on {message}");
            tokio::time::sleep(delay).await;
            answer(&sender, &work, message).await
        }
    });
    tokio::select! {
        ended = serving => ended?,
        ended = terminated() => ended?,
    }
    anyhow::ensure!(server.end(Duration::from_secs(10)).await, "some work goes to other servers");
    Ok(())
}

async fn answer(sender: &Sender, work: &Work, message: Value) -> anyhow::Result<Answer> {
    let server = std::process::id();
    if work.kind == Kind::Request {
        return Ok(Answer::from(json!({ "echo": message, "server": server })));
    }
    if let Some(said) = message.get("say") {
        let told = json!({ "said": said, "client": work.client, "server": server });
        sender.broadcast(&work.channel, &told).await?;
    }
    Ok(Answer::from(()))
}

/// Waits for a signal that asks for the end.
async fn terminated() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    Ok(())
}
