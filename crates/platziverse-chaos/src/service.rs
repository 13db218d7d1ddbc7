//! A service that faults end on purpose. Whatever else ends it is told.

use std::ops::Deref;
use std::process::ExitStatus;

use platziverse_testkit::Process;

/// How much of its log is told of a service that has ended by itself, in lines.
const LAST_LINES: usize = 5;

/// The exit code of a service that cannot start.
const FAILED: i32 = 1;
/// What a service says when it begins, and once it serves.
const BEGINS: &str = " starts; health and metrics on ";
const SERVES: &str = "start is ready";

/// A gateway or a worker.
#[derive(Debug)]
pub struct Service {
    process: Process,
    /// Whether its servers may be away: then one that cannot start is started again, as whoever
    /// supervises it does (`scripts/up`, Docker's restart policy).
    outage: bool,
    /// Whether its end is accounted for: a fault has ended it, or it is told already.
    felled: bool,
    unexpected: Vec<String>,
}

impl Service {
    /// The service of a process that runs.
    pub fn of(process: Process, outage: bool) -> Self {
        Self { process, outage, felled: false, unexpected: Vec::new() }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.fell();
        self.process.kill();
    }

    /// SIGTERM; it ends when it is ready to.
    pub fn ask_to_end(&mut self) {
        self.fell();
        if self.process.is_running() {
            self.process.peak_memory();
            self.process.signal("TERM");
        }
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        self.process.ended().await
    }

    /// Starts it, unless it runs.
    pub fn start_again(&mut self) -> Result<(), String> {
        self.look();
        if !self.process.is_running() {
            self.process.restart()?;
            self.felled = false;
        }
        Ok(())
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Memory in use, in bytes; none if it does not run.
    pub fn memory(&mut self) -> Option<u64> {
        self.process.is_running().then(|| self.process.memory())
    }

    /// Notes it if it has ended by itself.
    pub fn look(&mut self) {
        if self.felled {
            return;
        }
        let Some(status) = self.process.status() else { return };
        let log = self.process.log();
        let failed = match self.outage && could_not_start(status, &log) {
            true => self.process.restart().err(),
            false => Some(ended_by_itself(self.process.name(), status, &log)),
        };
        self.felled = failed.is_some();
        self.unexpected.extend(failed);
    }

    /// What should not have happened to it, a panic included.
    pub fn unexpected(&mut self) -> Vec<String> {
        self.look();
        let panicked = self.process.panicked();
        self.unexpected.extend(panicked.map(|words| format!("{}: {words}", self.process.name())));
        std::mem::take(&mut self.unexpected)
    }

    fn fell(&mut self) {
        self.look();
        self.felled = true;
    }
}

impl Deref for Service {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

fn could_not_start(status: ExitStatus, log: &str) -> bool {
    let life = log.rsplit_once(BEGINS).map_or(log, |(_, life)| life);
    status.code() == Some(FAILED) && !life.contains(SERVES)
}

fn ended_by_itself(name: &str, status: ExitStatus, log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n    ");
    format!("{name} ended by itself with {status}:\n    {last}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_a_start_may_fail() {
        let begins = format!("platziverse-worker 0.1.0{BEGINS}http://127.0.0.1:1\n");
        let check = |status: i32, log: &str, want: bool| {
            assert_eq!(could_not_start(ExitStatus::from_raw(status), log), want, "{status} {log}");
        };
        let lives = format!("{begins}{SERVES}\n{begins}platziverse-worker: connecting to …\n");
        check(1 << 8, &lives, true);
        check(1 << 8, &format!("{begins}{SERVES}\n"), false);
        check(2 << 8, &lives, false);
        check(9, &lives, false);
    }

    #[test]
    fn an_end_is_told_with_its_status_and_the_last_lines() {
        let log = (0..20).map(|line| format!("line {line}\n")).collect::<String>();
        let words = ended_by_itself("gateway-1", ExitStatus::from_raw(1 << 8), &log);
        assert!(words.starts_with("gateway-1 ended by itself with exit status: 1:"), "{words}");
        assert!(words.ends_with("line 19") && words.contains("line 15"), "{words}");
        assert!(!words.contains("line 14"), "{words}");
    }
}
