//! `platziverse bench`: what a gateway takes, or any other MQTT server.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args as ClapArgs;
use clap::builder::RangedU64ValueParser;
use platziverse_config::Uri;
use platziverse_load::{
    IN_FLIGHT_MAX, Latency, Login, Pace, Plan, Progress, Report, Server, Shape,
};

use crate::output;
use crate::progress;
use crate::settings::Context;

const BUILT_IN: &str = "mqtt://127.0.0.1:1883";
const PORT: u16 = 1883;
/// The most agents that a gateway takes from one connection.
const AGENTS_MAX: u64 = 1_000;
/// The most metrics that a message may have.
const METRICS_MAX: u64 = 1_000;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Where to publish, mqtt://HOST:PORT or mqtt://USER:PASSWORD@HOST:PORT, percent-encoded; more
    /// than one for several servers [default: the gateway that scripts/up started, by .run/env, else
    /// mqtt://127.0.0.1:1883]
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<MqttUrl>,
    /// Connections
    #[arg(long, default_value_t = 50, value_parser = RangedU64ValueParser::<usize>::new().range(1..=50_000))]
    clients: usize,
    /// Publishes that each client keeps unanswered
    #[arg(long, default_value_t = 20, conflicts_with = "rate", value_parser = clap::value_parser!(u16).range(1..=i64::from(IN_FLIGHT_MAX)))]
    in_flight: u16,
    /// Instead: messages a second, of all clients together, whatever the answers do
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// How long it counts
    #[arg(long, default_value = "10s")]
    time: humantime::Duration,
    /// How long they publish before it counts
    #[arg(long, default_value = "2s")]
    warm_up: humantime::Duration,
    /// Agents that each client reports for, in turn
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=AGENTS_MAX))]
    agents: usize,
    /// Metrics of a message
    #[arg(long, default_value_t = 2, value_parser = RangedU64ValueParser::<usize>::new().range(1..=METRICS_MAX))]
    metrics: usize,
    /// Publish bytes without meaning on this topic, and no reports
    #[arg(long, conflicts_with_all = ["agents", "metrics"])]
    topic: Option<String>,
    /// How many bytes
    #[arg(long, default_value_t = 200, requires = "topic", value_parser = RangedU64ValueParser::<usize>::new().range(0..=262_144))]
    bytes: usize,
    /// Begin the client ids and the agents' uuids with this
    #[arg(long, default_value = "bench")]
    name: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if rate > 0.0 && rate.is_finite() { Ok(rate) } else { Err("it must be above 0".to_owned()) }
}

/// An MQTT server, with who its clients are.
#[derive(Clone)]
struct MqttUrl {
    host: String,
    port: u16,
    login: Option<Login>,
}

impl std::fmt::Debug for MqttUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MqttUrl").field("host", &self.host).field("port", &self.port).finish()
    }
}

impl FromStr for MqttUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri = Uri::parse(text).map_err(|error| error.to_string())?;
        if uri.scheme != "mqtt" {
            return Err("it must begin with mqtt://; there is no TLS".to_owned());
        }
        let Some(host) = uri.host else { return Err("it names no host".to_owned()) };
        let login = uri.username.map(|username| {
            let password = uri.password.unwrap_or_default();
            Login { username, password }
        });
        Ok(Self { host, port: uri.port.unwrap_or(PORT), login })
    }
}

impl MqttUrl {
    async fn resolve(self) -> anyhow::Result<Server> {
        let name = format!("{}:{}", self.host, self.port);
        let mut addresses = tokio::net::lookup_host((self.host.as_str(), self.port))
            .await
            .with_context(|| format!("looking up {name}"))?;
        let address: Option<SocketAddr> = addresses.next();
        let address = address.with_context(|| format!("{name} has no address"))?;
        Ok(Server { address, login: self.login })
    }
}

pub(crate) async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let urls = match args.urls.is_empty() {
        true => vec![known(context)?],
        false => args.urls.clone(),
    };
    let mut servers = Vec::with_capacity(urls.len());
    for url in urls {
        servers.push(url.resolve().await?);
    }
    let plan = plan(&args, servers);
    // Each connection is an open file; without enough, connecting says so.
    let _ = rlimit::increase_nofile_limit(plan.clients as u64 + 100);
    let report = platziverse_load::run(&plan, |progress| progress::show(&told(progress))).await?;
    progress::clear();
    match args.json {
        true => output::print_json(&report)?,
        false => output::print(&shown(&report))?,
    }
    verdict(&report)
}

/// The gateway that `scripts/up` started, or the port that MQTT has everywhere.
fn known(context: &Context) -> anyhow::Result<MqttUrl> {
    let in_force = context.load()?;
    let text = in_force.run_env().and_then(|run_env| run_env.get("MQTT_URL")).unwrap_or(BUILT_IN);
    text.parse().map_err(|error| anyhow::anyhow!("MQTT_URL in .run/env: {error}"))
}

fn plan(args: &Args, servers: Vec<Server>) -> Plan {
    let shape = match &args.topic {
        Some(topic) => Shape::Opaque { topic: topic.clone(), bytes: args.bytes },
        None => Shape::Numbered { agents: args.agents, metrics: args.metrics },
    };
    Plan {
        servers,
        name: args.name.clone(),
        clients: args.clients,
        pace: args.rate.map_or(Pace::Closed(args.in_flight), Pace::Open),
        warm_up: args.warm_up.into(),
        time: args.time.into(),
        shape,
    }
}

fn told(progress: Progress) -> String {
    let Progress { seconds, rate, in_flight, open } = progress;
    format!("{seconds:.0} s: {rate:.0} a second, {in_flight} in flight, {open} connections")
}

fn shown(report: &Report) -> String {
    let Latency { p50, p90, p99, p999, max } = report.latency;
    let time = Duration::from_secs_f64(report.seconds);
    output::pairs(&[
        (
            "acknowledged",
            format!("{} in {time:?}, {:.0} a second", report.acknowledged, report.rate),
        ),
        (
            "latency, ms",
            format!("p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p999:.1}, max {max:.1}"),
        ),
        ("unanswered", report.unanswered.to_string()),
        ("connections lost", report.closed.to_string()),
    ])
}

/// Figures of a run that broke off half-way mean little.
fn verdict(report: &Report) -> anyhow::Result<()> {
    match (&report.why, report.unanswered) {
        (Some(why), _) => bail!("{} broke off: {why}", output::count(report.closed, "connection")),
        (None, 0) => Ok(()),
        (None, unanswered) => bail!("{} had no answer", output::count(unanswered, "message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, want: Result<(&str, u16, Option<&str>), &str>| {
            let got = text.parse::<MqttUrl>();
            let got = got.as_ref().map(|url| {
                let user = url.login.as_ref().map(|login| login.username.as_str());
                (url.host.as_str(), url.port, user)
            });
            assert_eq!(got.map_err(String::as_str), want, "{text}");
        };
        check("mqtt://h", Ok(("h", 1883, None)));
        check("mqtt://u:p%40@[::1]:1884", Ok(("::1", 1884, Some("u"))));
        check("mqtts://h", Err("it must begin with mqtt://; there is no TLS"));
        check("mqtt://", Err("it names no host"));
        check("h:1883", Err("it has no `://`"));
    }

    #[test]
    fn passwords_are_not_shown() {
        let url: MqttUrl = "mqtt://u:hidden@h".parse().unwrap();
        assert!(!format!("{url:?}").contains("hidden"));
    }

    #[test]
    fn what_broke_off_is_a_failure() {
        let good = Report::default();
        assert!(verdict(&good).is_ok());
        assert!(verdict(&Report { unanswered: 1, ..good.clone() }).is_err());
        let broken = Report { closed: 2, why: Some("reset".into()), ..good };
        assert_eq!(verdict(&broken).unwrap_err().to_string(), "2 connections broke off: reset");
    }
}
