//! Where scenarios are played: one RabbitMQ and one PostgreSQL for all of them.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use platziverse_load::{Login, Pace, Plan, Progress, Report, Server, Shape};
use platziverse_testkit::{Servers, free_port};

use crate::args::Args;
use crate::figure::Subject;
use crate::ours::Ours;
use crate::peers::{Mosquitto, Plugin};

/// The servers, and how long things take.
pub(crate) struct Site {
    pub(crate) servers: Arc<Servers>,
    pub(crate) args: Args,
    /// How many files a process may have open.
    pub(crate) files: u64,
    plugin: SocketAddr,
    /// Where RabbitMQ's plugin for STOMP over WebSockets listens.
    pub(crate) web_stomp: SocketAddr,
    pub(crate) login: Login,
    names: AtomicU32,
}

/// One of those that are compared, running.
pub(crate) enum Stand {
    Ours(Ours),
    Plugin(Plugin),
    Mosquitto(Mosquitto),
}

impl Stand {
    /// Where clients connect.
    pub(crate) fn servers(&self) -> Vec<Server> {
        match self {
            Self::Ours(ours) => ours.servers(),
            Self::Plugin(plugin) => vec![plugin.server()],
            Self::Mosquitto(mosquitto) => vec![mosquitto.server()],
        }
    }

    /// The process that has the connections.
    pub(crate) fn process(&self, site: &Site) -> Result<u32, String> {
        match self {
            Self::Ours(ours) => Ok(ours.gateways[0].pid()),
            Self::Plugin(_) => site.process("rabbitmq/vm.pid"),
            Self::Mosquitto(mosquitto) => Ok(mosquitto.process()),
        }
    }
}

impl Site {
    /// Starts the servers.
    pub(crate) async fn start(args: Args, files: u64) -> Result<Self, String> {
        let (plugin, web_stomp) = (free_port(), free_port());
        let ports = [plugin, web_stomp].map(|address| address.port().to_string());
        let settings = [
            ("RABBITMQ_MQTT_PORT", ports[0].as_str()),
            ("RABBITMQ_WEB_STOMP_PORT", ports[1].as_str()),
            ("POSTGRES_COMMIT_TIMES", "yes"),
        ];
        let name = format!("bench-{:08x}", fastrand::u32(..));
        let servers = Servers::start_in(&name, "all", &settings).await?;
        let login = login(&servers.url("AMQP_URL"))?;
        let (servers, names) = (Arc::new(servers), AtomicU32::new(0));
        Ok(Self { servers, args, files, plugin, web_stomp, login, names })
    }

    /// Starts one of those that are compared; nothing if it is not installed.
    pub(crate) async fn stand(
        &self,
        subject: Subject,
        gateways: usize,
    ) -> Result<Option<Stand>, String> {
        Ok(match subject {
            Subject::Platziverse => {
                let ours = Ours::start(self, gateways, 0, &[]).await?;
                Some(Stand::Ours(ours))
            }
            Subject::Plugin => {
                let servers = Arc::clone(&self.servers);
                Some(Stand::Plugin(Plugin::start(servers, self.plugin, &self.login).await))
            }
            Subject::Mosquitto => Mosquitto::start().await?.map(Stand::Mosquitto),
            // It knows no MQTT.
            Subject::Pika => None,
        })
    }

    /// A load of the usual length.
    pub(crate) fn plan(&self, servers: Vec<Server>, pace: Pace, shape: Shape) -> Plan {
        Plan {
            servers,
            name: self.name(),
            clients: self.args.clients,
            pace,
            warm_up: self.args.warm_up.into(),
            time: self.args.time.into(),
            shape,
        }
    }

    /// A name that was not given before.
    pub(crate) fn name(&self) -> String {
        format!("bench{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Offers a load. What is not answered, or breaks off, is no figure.
    pub(crate) async fn offer(&self, what: &str, plan: &Plan) -> Result<Report, String> {
        let tell = |Progress { seconds, rate, .. }| {
            show(&format!("{what}: {seconds:.0} s, {rate:.0} a second"));
        };
        let report = platziverse_load::run(plan, tell).await;
        hide();
        let report = report.map_err(|error| format!("{what}: {error}"))?;
        match (&report.why, report.unanswered) {
            (Some(why), _) => {
                Err(format!("{what}: {} connections broke off: {why}", report.closed))
            }
            (None, 0) => Ok(report),
            (None, unanswered) => Err(format!("{what}: {unanswered} messages had no answer")),
        }
    }

    /// The process that a file of the servers' names.
    pub(crate) fn process(&self, file: &str) -> Result<u32, String> {
        let path = self.servers.folder().join(file);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let number = text.split_whitespace().next().and_then(|number| number.parse().ok());
        number.ok_or_else(|| format!("{} names no process", path.display()))
    }

    /// Two metrics a message, about 200 bytes.
    pub(crate) fn usual_shape() -> Shape {
        Shape::Numbered { agents: 1, metrics: 2 }
    }
}

/// Lets what was just ended give its processor time back.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Shows how it goes, on a terminal.
pub(crate) fn show(text: &str) {
    if stderr().is_terminal() {
        // Progress that cannot be shown stops nothing.
        let _ = write!(stderr(), "\r\x1b[K{text}");
    }
}

/// Takes back what was shown.
pub(crate) fn hide() {
    show("");
}

/// The user name and the password of a URL.
fn login(url: &str) -> Result<Login, String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let credentials = rest.rsplit_once('@').map(|(credentials, _)| credentials);
    let parts = credentials.and_then(|credentials| credentials.split_once(':'));
    let (username, password) = parts.ok_or("RabbitMQ's URL has no credentials")?;
    Ok(Login { username: username.to_owned(), password: password.to_owned() })
}
