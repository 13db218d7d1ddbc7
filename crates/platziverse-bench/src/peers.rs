//! What people would pick instead.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use platziverse_load::{Login, Server};
use platziverse_testkit::{Servers, World, free_port};
use serde_json::json;
use tokio::net::TcpStream;

/// Where Debian has it; not everybody's PATH does.
const MOSQUITTO: [&str; 3] =
    ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto"];
/// How long it may take to listen.
const START: Duration = Duration::from_secs(10);

/// RabbitMQ's own MQTT plugin, in a vhost where its topic exchange leads to a quorum queue.
pub(crate) struct Plugin {
    address: SocketAddr,
    login: Login,
    _world: World,
}

impl Plugin {
    pub(crate) async fn start(servers: Arc<Servers>, address: SocketAddr, login: &Login) -> Self {
        let world = World::on(servers).await;
        let rabbitmq = world.rabbitmq();
        rabbitmq.declare_queue("bench", true, json!({"x-queue-type": "quorum"})).await;
        rabbitmq.bind("amq.topic", "agent.message", "bench").await;
        // The plugin takes the vhost from the user name.
        let username = format!("{}:{}", world.vhost(), login.username);
        let login = Login { username, password: login.password.clone() };
        Self { address, login, _world: world }
    }

    pub(crate) fn server(&self) -> Server {
        Server { address: self.address, login: Some(self.login.clone()) }
    }
}

/// A Mosquitto that stores nothing.
pub(crate) struct Mosquitto {
    child: Child,
    address: SocketAddr,
    settings: PathBuf,
}

impl Mosquitto {
    /// The program, if it is installed.
    pub(crate) fn program() -> Option<&'static Path> {
        MOSQUITTO.iter().map(Path::new).find(|path| path.exists())
    }

    /// Starts it; nothing if it is not installed.
    pub(crate) async fn start() -> Result<Option<Self>, String> {
        let Some(program) = Self::program() else { return Ok(None) };
        let address = free_port();
        let settings = std::env::temp_dir().join(format!("mosquitto-{}.conf", address.port()));
        let text = format!(
            "listener {} {}\nallow_anonymous true\npersistence false\nmax_inflight_messages 0\n\
             max_queued_messages 0\nset_tcp_nodelay true\nlog_type error\n",
            address.port(),
            address.ip()
        );
        fs::write(&settings, text).map_err(|error| format!("{}: {error}", settings.display()))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&settings).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::null()).spawn();
        let child =
            child.map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
        let mosquitto = Self { child, address, settings };
        mosquitto.listens().await?;
        Ok(Some(mosquitto))
    }

    async fn listens(&self) -> Result<(), String> {
        let end = Instant::now() + START;
        while TcpStream::connect(self.address).await.is_err() {
            if Instant::now() >= end {
                return Err(format!("mosquitto does not listen after {START:?}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub(crate) fn server(&self) -> Server {
        Server { address: self.address, login: None }
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // It may have ended by itself, and what stays behind is a small file among temporary ones.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.settings);
    }
}
