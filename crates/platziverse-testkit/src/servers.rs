//! A RabbitMQ and a PostgreSQL of a test's own, for tests that stop them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::{environment, url};

/// Private servers; they and their data go when this is dropped.
#[derive(Debug)]
pub struct Servers {
    script: PathBuf,
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

impl Servers {
    /// Starts these parts, and answers when they do.
    pub(crate) async fn start(name: &str, parts: &[&str]) -> Self {
        let [first, others @ ..] = parts else { panic!("nothing is to be started") };
        let servers = Self::start_in(name, first, &[]).await;
        let servers = servers.unwrap_or_else(|error| panic!("{error}"));
        for part in others {
            servers.run("start", part).await;
        }
        servers
    }

    /// Starts `what` (as `scripts/servers start` calls it) in a folder `name` of its own, and
    /// answers when it does. `environment` is that of every later command, too.
    pub async fn start_in(
        name: &str,
        what: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        let script = PathBuf::from(environment::required("TEST_SERVERS"));
        let parent = environment::optional("TEST_SERVERS_DIR").unwrap_or_else(std::env::temp_dir);
        let environment =
            environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let folder = parent.join(name);
        let servers = Self { script, folder, environment: environment.collect() };
        servers.try_run("start", what).await?;
        Ok(servers)
    }

    /// Runs `scripts/servers COMMAND SERVER`: start, stop, kill, restart, pause or resume, of
    /// rabbitmq, postgres, all or what else the script knows. Fails the test if it fails.
    pub async fn run(&self, command: &str, server: &str) {
        self.try_run(command, server).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same, or what the script said.
    pub async fn try_run(&self, command: &str, server: &str) -> Result<(), String> {
        let folder = self.folder.to_string_lossy().into_owned();
        self.script([command.to_owned(), server.to_owned(), folder].to_vec()).await.map(drop)
    }

    /// Runs rabbitmqctl with these arguments, of a cluster's first node: what it printed.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let folder = self.folder.to_string_lossy();
        let all = ["ctl", &folder].into_iter().chain(arguments.iter().copied());
        self.script(all.map(str::to_owned).collect()).await
    }

    async fn script(&self, arguments: Vec<String>) -> Result<String, String> {
        let what = format!("scripts/servers {}", arguments.join(" "));
        let mut command = self.command();
        let done = tokio::task::spawn_blocking(move || command.args(arguments).output());
        let done = done.await.map_err(|error| error.to_string())?;
        let output = done.map_err(|error| {
            format!("{} (TEST_SERVERS) cannot be run: {error}", self.script.display())
        })?;
        let Output { status, stdout, stderr } = &output;
        let (stdout, stderr) = (String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr));
        match status.success() {
            true => Ok(stdout.into_owned()),
            false => Err(format!("{what} failed ({status}):\n{stdout}{stderr}")),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.script);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    /// A value of the servers' file `env`: AMQP_URL, MANAGEMENT_URL, DATABASE_URL and what else the
    /// script writes there. Fails the test if there is none.
    pub fn url(&self, name: &str) -> String {
        let path = self.folder.join("env");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let values: HashMap<_, _> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let value = values.get(name).unwrap_or_else(|| panic!("{}: no {name}", path.display()));
        value.trim_matches('\'').to_owned()
    }

    /// Where the server of such a value listens, such as AMQP_URL_2 of a cluster.
    pub fn address(&self, name: &str) -> SocketAddr {
        url::address(&self.url(name))
    }

    /// The folder with their data and logs.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let delete = self.command().args(["delete", "all"]).arg(&self.folder).output();
        if delete.is_ok_and(|output| output.status.success()) {
            // What stays behind is an empty folder among temporary ones.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
