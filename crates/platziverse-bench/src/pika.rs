//! What people would handle tasks and publish with instead: Python, with pika.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PYTHON: &str = "python3";
/// Handed over on the command line: the programs may lie apart from their sources.
const CONSUMER: &str = include_str!("../peers/consumer.py");
const PUBLISHER: &str = include_str!("../peers/publisher.py");
const WAITER: &str = include_str!("../peers/waiter.py");
const VERSIONS: &str =
    "import pika, platform; print(pika.__version__, 'with Python', platform.python_version())";
/// How often it is looked at whether it has ended.
const LOOK: Duration = Duration::from_millis(100);
/// How much longer than it publishes a publisher may take.
const PATIENCE: Duration = Duration::from_secs(30);

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
    let arguments = [prefetch.to_string(), tasks.to_string()];
    let [seconds] = run(CONSUMER, url, queue, &arguments, within).await?;
    Ok((tasks - 1) as f64 / seconds)
}

/// How a load is offered.
pub(crate) struct Plan {
    /// Bytes of a message.
    pub(crate) bytes: usize,
    pub(crate) warm_up: Duration,
    pub(crate) time: Duration,
}

/// Has a publisher keep `window` messages on their way to a queue; answers how many RabbitMQ
/// confirmed a second.
pub(crate) async fn fill(url: &str, queue: &str, window: u64, plan: &Plan) -> Result<f64, String> {
    let [rate] = load(PUBLISHER, url, queue, window, plan).await?;
    Ok(rate)
}

/// Has a consumer wait for what is published `rate` times a second; answers the median and the 99th
/// percentile of the milliseconds until it has a message.
pub(crate) async fn wait(
    url: &str,
    queue: &str,
    rate: u64,
    plan: &Plan,
) -> Result<[f64; 2], String> {
    load(WAITER, url, queue, rate, plan).await
}

async fn load<const N: usize>(
    program: &str,
    url: &str,
    queue: &str,
    number: u64,
    plan: &Plan,
) -> Result<[f64; N], String> {
    let Plan { bytes, warm_up, time } = plan;
    let times = [warm_up, time].map(|time| time.as_secs_f64().to_string());
    let [warm_up_seconds, seconds] = times;
    let arguments = [number.to_string(), bytes.to_string(), warm_up_seconds, seconds];
    run(program, url, queue, &arguments, *warm_up + *time + PATIENCE).await
}

/// Runs a program in Python to its end; answers the numbers above zero that it prints.
async fn run<const N: usize>(
    program: &str,
    url: &str,
    queue: &str,
    arguments: &[String],
    within: Duration,
) -> Result<[f64; N], String> {
    let mut command = Command::new(PYTHON);
    command.env("AMQP_URL", url).args(["-c", program, queue]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| format!("{PYTHON} cannot be run: {error}"))?;
    let mut program = Program(child);
    let status = program.ended(within).await?;
    let output = program.output();
    let numbers = output.split_whitespace().map_while(|number| number.parse::<f64>().ok());
    match <[f64; N]>::try_from(numbers.filter(|number| *number > 0.0).collect::<Vec<_>>()) {
        Ok(numbers) if status.success() => Ok(numbers),
        _ => Err(format!("the program in Python ended with {status}: {}", program.errors())),
    }
}

/// The process, which does not outlive this. What it writes fits into a pipe.
struct Program(Child);

impl Program {
    async fn ended(&mut self, within: Duration) -> Result<ExitStatus, String> {
        let end = Instant::now() + within;
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() < end => tokio::time::sleep(LOOK).await,
                Ok(None) => return Err(format!("the program in Python runs after {within:?}")),
                Err(error) => return Err(format!("the program in Python: {error}")),
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

impl Drop for Program {
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
