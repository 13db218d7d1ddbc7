//! On what it was measured.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use platziverse_testkit::World;
use serde::Serialize;

use crate::peers::Mosquitto;
use crate::pika;
use crate::site::Site;

/// On what, and against what, it was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processors' model.
    pub(crate) processor: String,
    /// How many there are.
    pub(crate) processors: usize,
    /// Memory, in GB.
    pub(crate) memory: u64,
    /// RabbitMQ's version.
    pub(crate) rabbitmq: String,
    /// PostgreSQL's version.
    pub(crate) postgresql: String,
    /// Mosquitto's version, if it is installed.
    pub(crate) mosquitto: Option<String>,
    /// The versions of pika and Python, if they are installed.
    pub(crate) pika: Option<String>,
}

impl Machine {
    pub(crate) async fn of(site: &Site) -> Self {
        let world = World::on(Arc::clone(&site.servers)).await;
        let postgresql = world.database().value("SHOW server_version").await;
        let rabbitmq = site.servers.ctl(&["-q", "version"]).await.unwrap_or_default();
        Self {
            processor: after("/proc/cpuinfo", "model name").unwrap_or_default(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory().unwrap_or(0),
            rabbitmq: rabbitmq.trim().to_owned(),
            // What follows is the distribution's own.
            postgresql: postgresql.split(' ').next().unwrap_or_default().to_owned(),
            mosquitto: mosquitto(),
            pika: pika::versions(),
        }
    }

    /// One line for a person.
    pub(crate) fn shown(&self) -> String {
        let Self { processor, processors, memory, rabbitmq, postgresql, mosquitto, pika } = self;
        let [mosquitto, pika] =
            [mosquitto, pika].map(|version| version.as_deref().unwrap_or("not installed"));
        format!(
            "{processors} processors ({processor}), {memory} GB; RabbitMQ {rabbitmq}, PostgreSQL \
             {postgresql}, Mosquitto {mosquitto}, pika {pika}"
        )
    }
}

fn after(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> Option<u64> {
    let kilobytes: u64 = after("/proc/meminfo", "MemTotal")?.split(' ').next()?.parse().ok()?;
    Some((kilobytes + (1 << 19)) >> 20)
}

fn mosquitto() -> Option<String> {
    let output = Command::new(Mosquitto::program()?).arg("-h").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().next()?.split_whitespace().last()?;
    Some(version.to_owned())
}
