//! The real programs as child processes.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::http::{self, Answer};
use crate::{PATIENCE, Samples, check, environment, eventually};

const TAIL_LINES: usize = 60;

/// A running service. It is killed when this is dropped; if the test fails, the end of its log is
/// printed; if it panicked, the test fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ops: SocketAddr,
    mqtt: Option<SocketAddr>,
}

/// How a program that ended by itself did so.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// What a program is started with.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) program: &'static str,
    pub(crate) arguments: Vec<String>,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) folder: PathBuf,
}

impl Start {
    fn command(&self) -> Command {
        let mut command = Command::new(environment::program(self.program));
        command
            .args(&self.arguments)
            .env_clear()
            .envs(environment::inherited())
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(self) -> Ended {
        let mut command = self.command();
        let name = self.program;
        let output = tokio::task::spawn_blocking(move || {
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
            child.and_then(Child::wait_with_output)
        });
        let output = tokio::time::timeout(PATIENCE, output).await.unwrap_or_else(|_| {
            panic!("{name} did not end by itself within {PATIENCE:?}");
        });
        let output = output.expect("a blocking task ends").unwrap_or_else(|error| {
            panic!("{name} cannot be run: {error}");
        });
        Ended {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts the program, without waiting for it.
    pub(crate) fn spawn(self, name: &str, ops: SocketAddr, mqtt: Option<SocketAddr>) -> Process {
        let log = self.folder.join(format!("{name}.log"));
        let file = File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let output = file.try_clone().expect("a file has two handles");
        let spawned = self.command().stdout(output).stderr(file).spawn();
        let child = spawned.unwrap_or_else(|error| panic!("{} : {error}", self.program));
        Process { name: name.to_owned(), child, log, ops, mqtt }
    }
}

impl Process {
    /// Where it listens for MQTT. Fails the test if it is no gateway.
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt.unwrap_or_else(|| panic!("{} does not listen for MQTT", self.name))
    }

    /// What it wrote to stdout and stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `/readyz` says that it is ready; fails the test at once if the process ends.
    pub async fn ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.assert_runs();
            let seen = match self.try_get("/readyz").await {
                Ok(answer) if answer.status == 200 => return,
                Ok(answer) => answer.body,
                Err(error) => error,
            };
            assert!(Instant::now() < end, "{} is not ready after {PATIENCE:?}: {seen}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `/readyz`: the status and the JSON.
    pub async fn readyz(&self) -> (u16, Value) {
        let answer = self.get("/readyz").await;
        (answer.status, answer.json())
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> Samples {
        Samples::parse(&self.get("/metrics").await.body)
    }

    /// A page of its operator's listener.
    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    async fn try_get(&self, path: &str) -> Result<Answer, String> {
        http::get(format!("http://{}{path}", self.ops)).await
    }

    /// Memory in use (VmRSS), in bytes.
    pub fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{} ({path}): {error}", self.name));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        1024 * kilobytes.unwrap_or(0_u64)
    }

    /// SIGKILL: no goodbye.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended().await
    }

    /// Sends a signal by its name without SIG: TERM, STOP, CONT.
    pub fn signal(&self, signal: &str) {
        let order = format!("kill -{signal} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &order]).status();
        assert!(status.is_ok_and(|status| status.success()), "{}: {order} failed", self.name);
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            assert!(Instant::now() < end, "{} has not ended after {PATIENCE:?}", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Fails the test if the process has ended.
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.status() {
            panic!("{} has ended with {status}:\n{}", self.name, tail(&self.log()));
        }
    }

    /// Waits until the metric `name` is at least `wanted`.
    pub async fn counts(&self, name: &str, wanted: f64) {
        eventually(&format!("{}: {name} >= {wanted}", self.name), PATIENCE, || async {
            let seen = self.metrics().await.get(name);
            check(seen >= wanted, || format!("it is {seen}"))
        })
        .await;
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("--- the end of the log of {}:\n{}", self.name, tail(&log));
        } else {
            assert!(!log.contains("panicked at"), "{} panicked:\n{}", self.name, tail(&log));
        }
    }
}

/// Makes an empty folder for logs.
pub(crate) fn make_folder(path: &Path) {
    std::fs::create_dir_all(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
