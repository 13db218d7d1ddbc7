//! How the real programs are started.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::terminal::Terminal;
use crate::{PATIENCE, environment};

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

/// A child that does not outlive this.
#[derive(Debug)]
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
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

    /// Runs the program to its end, with this on its stdin; kills it and fails the test if it does
    /// not end.
    pub(crate) async fn run(self, input: &str) -> Ended {
        let name = self.program;
        // Files take what a pipe would hold up until somebody reads it.
        let label = format!("{}-{}", name.replace('/', "-"), Uuid::now_v7());
        let file = |ending| self.folder.join(format!("{label}.{ending}"));
        let (stdin, stdout, stderr) = (file("in"), file("out"), file("err"));
        let mut command = self.command();
        command.stdin(given(&stdin, input)).stdout(make(&stdout)).stderr(make(&stderr));
        let spawned = command.spawn();
        let child = spawned.unwrap_or_else(|error| panic!("{name} cannot be run: {error}"));
        let status = end_of(child).await;
        let ended =
            status.map(|status| Ended { status, stdout: take(&stdout), stderr: take(&stderr) });
        ended.unwrap_or_else(|| {
            panic!("{name} did not end by itself within {PATIENCE:?}:\n{}", take(&stderr))
        })
    }

    /// The same at a terminal, where somebody types `typed`: how it ended, and what was shown.
    pub(crate) async fn run_at_terminal(self, typed: &str) -> (ExitStatus, String) {
        let name = self.program;
        let mut terminal = Terminal::open().expect("a terminal can be opened");
        let side = || terminal.stdio().expect("a terminal can be shared");
        let mut command = self.command();
        command.stdin(side()).stdout(side()).stderr(side());
        terminal.type_in(typed).expect("a terminal can be typed at");
        let spawned = command.spawn();
        let child = spawned.unwrap_or_else(|error| panic!("{name} cannot be run: {error}"));
        // It holds the terminal, too.
        drop(command);
        let shown = tokio::task::spawn_blocking(|| terminal.shown());
        let status = end_of(child).await;
        let shown = shown.await.expect("what is shown can be read");
        match status {
            Some(status) => (status, shown),
            None => panic!("{name} did not end by itself within {PATIENCE:?}:\n{shown}"),
        }
    }

    /// Starts the program, without waiting for it; what it writes is appended to `log`.
    pub(crate) fn spawn(&self, log: &Path) -> Result<Child, String> {
        let in_log = |error| format!("{}: {error}", log.display());
        let file = OpenOptions::new().create(true).append(true).open(log).map_err(in_log)?;
        let output = file.try_clone().map_err(in_log)?;
        let spawned = self.command().stdout(output).stderr(file).spawn();
        spawned.map_err(|error| format!("{} cannot be run: {error}", self.program))
    }
}

async fn end_of(child: Child) -> Option<ExitStatus> {
    let mut guard = Guard(child);
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match guard.0.try_wait().expect("a child can be waited for") {
            Some(status) => return Some(status),
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    None
}

fn make(path: &Path) -> File {
    File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file with this text, to be read; its name is gone at once.
fn given(path: &Path, text: &str) -> File {
    let opened = std::fs::write(path, text).and_then(|()| File::open(path));
    let file = opened.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // What stays behind is in the folder of the logs.
    let _ = std::fs::remove_file(path);
    file
}

/// What is in a file, which then is gone.
fn take(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    // What stays behind is in the folder of the logs.
    let _ = std::fs::remove_file(path);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Makes an empty folder for logs.
pub(crate) fn make_folder(path: &Path) {
    std::fs::create_dir_all(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
