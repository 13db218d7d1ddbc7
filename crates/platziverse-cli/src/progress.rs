//! A sign of life for people who wait.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often the line is written anew; nobody needs it for what takes less.
const BEAT: Duration = Duration::from_secs(1);
const CLEAR_LINE: &str = "\r\x1b[K";

/// Waits for `work` and meanwhile shows on a terminal that it goes on, and for how long.
pub(crate) async fn shown<T>(doing: &str, work: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let line = Line { doing, start: Instant::now() };
    let mut beat = interval_at(line.start + BEAT, BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = beat.tick() => line.write(),
        }
    }
}

/// Shows a line in place of the one before, on a terminal.
pub(crate) fn show(line: &str) {
    if io::stderr().is_terminal() {
        put(&format!("{CLEAR_LINE}{line}"));
    }
}

/// Empties the terminal's line, be it a sign of life or a question without an answer.
pub(crate) fn clear() {
    if io::stderr().is_terminal() {
        put(CLEAR_LINE);
    }
}

struct Line<'a> {
    doing: &'a str,
    start: Instant,
}

impl Line<'_> {
    fn write(&self) {
        let seconds = self.start.elapsed().as_secs();
        put(&format!("{CLEAR_LINE}{} … {seconds} s", self.doing));
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.start.elapsed() >= BEAT {
            put(CLEAR_LINE);
        }
    }
}

fn put(text: &str) {
    let mut stderr = io::stderr();
    // Progress that nobody can see is no loss.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
