//! Gateways and workers of ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use platziverse_load::Server;
use platziverse_testkit::{Process, World};

use crate::site::Site;

/// How often a worker is asked how far it is.
const LOOK: Duration = Duration::from_millis(100);

const STORED: &str = "platziverse_worker_records_stored_total";

/// A setting of a service, as its environment has it.
pub(crate) type Setting<'a> = (&'a str, &'a str);

/// A vhost, a database, and what runs in them.
pub(crate) struct Ours {
    // The processes end before what they use goes.
    pub(crate) gateways: Vec<Process>,
    pub(crate) workers: Vec<Process>,
    pub(crate) world: World,
}

impl Ours {
    /// Starts everything, and waits until it is ready.
    pub(crate) async fn start(
        site: &Site,
        gateways: usize,
        workers: usize,
        settings: &[Setting<'_>],
    ) -> Result<Self, String> {
        let world = World::on(Arc::clone(&site.servers)).await;
        let mut ours = Self { gateways: Vec::new(), workers: Vec::new(), world };
        for _ in 0..workers {
            ours.add_worker(settings).await?;
        }
        let connections = (site.args.idle.max(site.args.clients) + 1_000).to_string();
        let room = [("PLATZIVERSE_GATEWAY__MAX_CONNECTIONS", connections.as_str())];
        for _ in 0..gateways {
            ours.gateways.push(ours.world.try_gateway_with(&room).await?);
        }
        Ok(ours)
    }

    /// Starts one more worker.
    pub(crate) async fn add_worker(&mut self, settings: &[Setting<'_>]) -> Result<(), String> {
        self.workers.push(self.world.try_worker_with(settings).await?);
        Ok(())
    }

    /// Where clients connect.
    pub(crate) fn servers(&self) -> Vec<Server> {
        self.gateways.iter().map(|one| Server { address: one.mqtt(), login: None }).collect()
    }

    /// Waits until the workers have stored `messages` since they were started.
    pub(crate) async fn stored(&self, messages: u64, within: Duration) -> Result<(), String> {
        let end = Instant::now() + within;
        loop {
            let stored = self.stored_so_far().await?;
            if stored >= messages as f64 {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("{stored} of {messages} messages are stored after {within:?}"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Records that the workers have stored since they were started.
    pub(crate) async fn stored_so_far(&self) -> Result<f64, String> {
        let mut stored = 0.0;
        for worker in &self.workers {
            stored += worker.try_metrics().await?.try_get(STORED)?;
        }
        Ok(stored)
    }

    /// Fails unless the table holds exactly these.
    pub(crate) async fn holds(&self, rows: u64) -> Result<(), String> {
        let services: Vec<_> = self.gateways.iter().chain(&self.workers).collect();
        self.world.at_rest(&services).await;
        let counted = self.world.database().value("SELECT count(*) FROM metrics").await;
        match counted.parse::<u64>() {
            Ok(counted) if rows == counted => Ok(()),
            _ => Err(format!("there are {counted} rows and not {rows}")),
        }
    }
}
