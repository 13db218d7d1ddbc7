//! A RabbitMQ and a PostgreSQL of a test's own, for tests that stop them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use crate::environment;

/// Private servers; they and their data go when this is dropped.
#[derive(Debug)]
pub struct Servers {
    script: PathBuf,
    folder: PathBuf,
}

impl Servers {
    /// Starts both, and answers when they do.
    pub(crate) async fn start(name: &str) -> Self {
        let script = PathBuf::from(environment::required("TEST_SERVERS"));
        let parent = environment::optional("TEST_SERVERS_DIR").unwrap_or_else(std::env::temp_dir);
        let folder = parent.join(name);
        let servers = Self { script, folder };
        servers.run("start", "all").await;
        servers
    }

    /// Runs `scripts/servers COMMAND SERVER`: start, stop, kill, restart, pause or resume, of
    /// rabbitmq, postgres or all. Fails the test if it fails.
    pub async fn run(&self, command: &'static str, server: &'static str) {
        let (script, folder) = (self.script.clone(), self.folder.clone());
        let done = tokio::task::spawn_blocking(move || {
            Command::new(script).args([command, server]).arg(folder).output()
        });
        let output = done.await.expect("a blocking task ends").unwrap_or_else(|error| {
            panic!("{} (TEST_SERVERS) cannot be run: {error}", self.script.display())
        });
        assert!(
            output.status.success(),
            "scripts/servers {command} {server} failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// One of AMQP_URL, MANAGEMENT_URL and DATABASE_URL.
    pub(crate) fn url(&self, name: &str) -> String {
        let path = self.folder.join("env");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let values: HashMap<_, _> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let value = values.get(name).unwrap_or_else(|| panic!("{}: no {name}", path.display()));
        value.trim_matches('\'').to_owned()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let delete = Command::new(&self.script).args(["delete", "all"]).arg(&self.folder).output();
        if delete.is_ok_and(|output| output.status.success()) {
            // What stays behind is an empty folder among temporary ones.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}
