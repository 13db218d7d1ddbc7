//! What people would handle tasks with instead: a consumer in Python, with pika.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PYTHON: &str = "python3";
/// Handed over on the command line: the programs may lie apart from their sources.
const CONSUMER: &str = include_str!("../peers/consumer.py");
const VERSIONS: &str =
    "import pika, platform; print(pika.__version__, 'with Python', platform.python_version())";
/// How often it is looked at whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// The versions of pika and Python, if both are installed.
pub(crate) fn versions() -> Option<String> {
    let output = Command::new(PYTHON).args(["-c", VERSIONS]).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Has a consumer take `tasks` tasks out of a queue; answers how many it acknowledged a second.
pub(crate) async fn empty(
    url: &str,
    queue: &str,
    prefetch: u16,
    tasks: u64,
    within: Duration,
) -> Result<f64, String> {
    let mut command = Command::new(PYTHON);
    command.env("AMQP_URL", url);
    command.args(["-c", CONSUMER, queue, &prefetch.to_string(), &tasks.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("{PYTHON} cannot be run: {error}"))?;
    let mut consumer = Consumer(child);
    let status = consumer.ended(within).await?;
    match (status.success(), consumer.output().trim().parse::<f64>()) {
        (true, Ok(seconds)) if seconds > 0.0 => Ok((tasks - 1) as f64 / seconds),
        _ => Err(format!("the consumer in Python ended with {status}: {}", consumer.errors())),
    }
}

/// The process, which does not outlive this. What it writes fits into a pipe.
struct Consumer(Child);

impl Consumer {
    async fn ended(&mut self, within: Duration) -> Result<ExitStatus, String> {
        let end = Instant::now() + within;
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < end => tokio::time::sleep(LOOK).await,
                Ok(None) => return Err(format!("the consumer in Python runs after {within:?}")),
                Err(error) => return Err(format!("the consumer in Python: {error}")),
            }
        }
    }

    fn output(&mut self) -> String {
        self.0.stdout.as_mut().map(read).unwrap_or_default()
    }

    fn errors(&mut self) -> String {
        self.0.stderr.as_mut().map(read).unwrap_or_default()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(from: &mut impl Read) -> String {
    let mut text = String::new();
    // What cannot be read is missing in a message.
    let _ = from.read_to_string(&mut text);
    text
}
