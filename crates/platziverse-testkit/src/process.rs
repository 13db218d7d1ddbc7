//! A service of ours as a child process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::http::{self, Answer};
use crate::start::Start;
use crate::{PATIENCE, Samples, check, eventually, memory};

const TAIL_LINES: usize = 60;

/// What a program writes if it panics.
const PANIC: &str = "panicked at";

/// A running service. It is killed when this is dropped; if the test fails, the end of its log is
/// printed; if it panicked and nobody has asked ([`Process::panicked`]), the test fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    start: Start,
    child: Child,
    log: PathBuf,
    ops: Option<SocketAddr>,
    mqtt: Option<SocketAddr>,
    /// The most memory that was seen, in bytes: a process that has ended cannot be asked.
    peak: AtomicU64,
    panic_told: AtomicBool,
}

impl Process {
    /// Starts a service that listens at `ops`, and at `mqtt` if it is a gateway.
    pub(crate) fn spawn(
        start: Start,
        name: &str,
        ops: impl Into<Option<SocketAddr>>,
        mqtt: Option<SocketAddr>,
    ) -> Result<Self, String> {
        let log = start.folder.join(format!("{name}.log"));
        let child = start.spawn(&log)?;
        let (ops, peak, panic_told) = (ops.into(), AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { name: name.to_owned(), start, child, log, ops, mqtt, peak, panic_told })
    }

    /// Starts the same program again after it has ended, with the same settings and ports. Its log
    /// goes on in the same file.
    pub fn restart(&mut self) -> Result<(), String> {
        if self.is_running() {
            return Err(format!("{} still runs", self.name));
        }
        self.child = self.start.spawn(&self.log)?;
        Ok(())
    }

    /// What it is called in this test.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id; another one after each restart.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens for MQTT. Fails the test if it is no gateway.
    pub fn mqtt(&self) -> SocketAddr {
        self.mqtt.unwrap_or_else(|| panic!("{} does not listen for MQTT", self.name))
    }

    /// Where it shows its health. Fails the test if it does not.
    pub fn ops(&self) -> SocketAddr {
        self.ops.unwrap_or_else(|| panic!("{} does not show its health", self.name))
    }

    pub(crate) fn is_gateway(&self) -> bool {
        self.mqtt.is_some()
    }

    pub(crate) fn program(&self) -> &'static str {
        self.start.program
    }

    /// What it wrote to stdout and stderr.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.status().is_none()
    }

    /// What it wrote about its first panic, if it has panicked. The drop says nothing more of it.
    pub fn panicked(&self) -> Option<String> {
        let log = self.log();
        let (at, _) = log.lines().enumerate().find(|(_, line)| line.contains(PANIC))?;
        self.panic_told.store(true, Ordering::Relaxed);
        let story: Vec<_> = log.lines().skip(at).take(TAIL_LINES).collect();
        Some(story.join("\n"))
    }

    /// Waits until `/readyz` says that it is ready; fails the test at once if the process ends.
    pub async fn ready(&mut self) {
        self.try_ready(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same for at most `within`, or why it is not ready.
    pub async fn try_ready(&mut self, within: Duration) -> Result<(), String> {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.status() {
                return Err(self.ended_with(status));
            }
            let seen = match self.try_get("/readyz").await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => answer.body,
                Err(error) => error,
            };
            if Instant::now() >= end {
                return Err(format!("{} is not ready after {within:?}: {seen}", self.name));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `/readyz`: the status and the JSON.
    pub async fn readyz(&self) -> (u16, Value) {
        self.try_readyz().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, or why it cannot be said.
    pub async fn try_readyz(&self) -> Result<(u16, Value), String> {
        let answer = self.try_get("/readyz").await?;
        Ok((answer.status, answer.try_json()?))
    }

    /// `/metrics`.
    pub async fn metrics(&self) -> Samples {
        self.try_metrics().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, or why it cannot be said.
    pub async fn try_metrics(&self) -> Result<Samples, String> {
        let answer = self.try_get("/metrics").await?;
        match answer.status {
            200 => Ok(Samples::parse(&answer.body)),
            status => Err(format!("{}: /metrics: {status} {}", self.name, answer.body)),
        }
    }

    /// A page of its operator's listener.
    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn try_get(&self, path: &str) -> Result<Answer, String> {
        let answer = http::get(format!("http://{}{path}", self.ops())).await;
        answer.map_err(|error| format!("{}: {error}", self.name))
    }

    /// Memory in use (VmRSS), in bytes.
    pub fn memory(&self) -> u64 {
        memory::memory(self.child.id()).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The most memory that it has used so far (VmHWM), in bytes: of all its lives as far as it was
    /// asked in them, and until the moment in which it was killed.
    pub fn peak_memory(&self) -> u64 {
        let now = memory::peak(self.child.id()).unwrap_or(0);
        self.peak.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// SIGKILL: no goodbye.
    pub fn kill(&mut self) {
        self.peak_memory();
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for the end.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.peak_memory();
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
            panic!("{}", self.ended_with(status));
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

    /// Waits until it has written `text` so many times.
    pub async fn writes(&self, text: &str, times: usize) {
        eventually(&format!("{} writes {text:?}", self.name), PATIENCE, || async {
            let log = self.log();
            let seen = log.matches(text).count();
            check(seen >= times, || format!("{seen} of {times} times:\n{}", tail(&log)))
        })
        .await;
    }

    fn ended_with(&self, status: ExitStatus) -> String {
        format!("{} has ended with {status}:\n{}", self.name, tail(&self.log()))
    }

    /// How it has ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the end of the log of {}:\n{}", self.name, tail(&self.log()));
        } else if !self.panic_told.load(Ordering::Relaxed)
            && let Some(panic) = self.panicked()
        {
            panic!("{} panicked:\n{panic}", self.name);
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
