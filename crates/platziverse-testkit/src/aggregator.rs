//! Aggregators, and the servers behind them.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use crate::world::ready;
use crate::{Process, Stream, World, WsClient, WsOptions, free_port};

pub(crate) const PROGRAM: &str = "platziverse-aggregator";

/// What sessions are signed with: all aggregators of a test go on with each other's.
const SESSION_SECRET: &str = "a secret of thirty-two bytes, at least";

/// A running aggregator.
#[derive(Debug)]
pub struct Aggregator {
    process: Process,
    address: SocketAddr,
}

impl Deref for Aggregator {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Aggregator {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Aggregator {
    /// Where it listens for WebSockets and shows its page.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects the client of that id and reads the welcome. Fails the test if it is refused.
    pub async fn client(&self, id: &str) -> WsClient {
        let mut client = WsClient::connect(WsOptions::new(self.address).client(id)).await;
        client.expect("welcome").await;
        client
    }

    /// The service alone, for whoever knows where it listens.
    pub fn into_process(self) -> Process {
        self.process
    }
}

impl World {
    /// Starts an aggregator and waits until it is ready.
    pub async fn aggregator(&self) -> Aggregator {
        self.aggregator_with(&[]).await
    }

    /// The same with more settings (`PLATZIVERSE_AGGREGATOR__…`).
    pub async fn aggregator_with(&self, settings: &[(&str, &str)]) -> Aggregator {
        self.try_aggregator_with(settings).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, or why it does not become ready.
    pub async fn try_aggregator_with(
        &self,
        settings: &[(&str, &str)],
    ) -> Result<Aggregator, String> {
        let Aggregator { process, address } = self.try_spawn_aggregator(settings)?;
        Ok(Aggregator { process: ready(process).await?, address })
    }

    /// Starts an aggregator.
    pub fn spawn_aggregator(&self, settings: &[(&str, &str)]) -> Aggregator {
        self.try_spawn_aggregator(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_spawn_aggregator(&self, settings: &[(&str, &str)]) -> Result<Aggregator, String> {
        let (ops, address) = (free_port(), free_port());
        let own = [
            ("PLATZIVERSE_AMQP__URL", self.amqp_url().to_owned()),
            ("PLATZIVERSE_OPS__LISTEN", ops.to_string()),
            ("PLATZIVERSE_AGGREGATOR__LISTEN", address.to_string()),
            ("PLATZIVERSE_AGGREGATOR__SESSION_SECRET", SESSION_SECRET.to_owned()),
        ];
        let start = self.prepare(PROGRAM, &[], &own, settings);
        let process = Process::spawn(start, &self.label("aggregator"), ops, None)?;
        Ok(Aggregator { process, address })
    }

    /// Starts the server of the kit's example, with arguments such as `--channel`, `--delay`. It
    /// reaches RabbitMQ at that URL: [`World::amqp_url`], or by way of another address.
    pub fn echo_server(&self, url: &str, arguments: &[&str]) -> Process {
        self.spawn_server("examples/echo_server", &[&["--url", url], arguments].concat(), url)
    }

    /// Starts the server in Python, with arguments such as the channel, `--delay`.
    pub fn python_server(&self, url: &str, arguments: &[&str]) -> Process {
        const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/clients/server.py");
        self.spawn_server("/usr/bin/env", &[&["python3", FILE], arguments].concat(), url)
    }

    fn spawn_server(&self, program: &'static str, arguments: &[&str], url: &str) -> Process {
        let own = [("AMQP_URL", url.to_owned())];
        let start = self.prepare(program, arguments, &own, &[]);
        Process::spawn(start, &self.label("server"), None, None)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Reads a stream of RabbitMQ from its first message on.
    pub async fn stream(&self, name: &str) -> Stream {
        Stream::open(self.amqp_url(), name).await
    }
}
