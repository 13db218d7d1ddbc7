//! A run from its first connection to its report.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use platziverse_service::clock;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::{Client, Run, connect};
use crate::latency::Recorder;
use crate::plan::Plan;
use crate::report::{Progress, Report};

/// Connections that are made at the same time.
const CONNECTING: usize = 128;
/// How long a connection may take to be let in.
const CONNECT: Duration = Duration::from_secs(30);
/// Between connecting and the first publish.
const PREPARE: Duration = Duration::from_millis(50);
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No connection.
    #[error("no connection to {address}")]
    Connect {
        /// The server's.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The server does not let the client in.
    #[error("{address} does not let a client in: its CONNACK has the code {code}")]
    Refused {
        /// The server's.
        address: SocketAddr,
        /// The return code (MQTT 3.1.1, table 3.1).
        code: u8,
    },
    /// The answer is not a CONNACK.
    #[error("{address} does not answer as an MQTT server")]
    NotMqtt {
        /// The server's.
        address: SocketAddr,
    },
    /// No server is given, or no client.
    #[error("there is no server or no client")]
    Nothing,
}

/// Clients that are connected and publish nothing yet.
#[derive(Debug)]
pub struct Clients {
    plan: Plan,
    streams: Vec<(usize, TcpStream)>,
    /// How long all of them took to be let in.
    pub took: Duration,
}

impl Clients {
    /// Connects all clients of a plan.
    ///
    /// # Errors
    /// When one of them is not let in within 30 s.
    pub async fn connect(plan: &Plan) -> Result<Self, LoadError> {
        if plan.servers.is_empty() || plan.clients == 0 {
            return Err(LoadError::Nothing);
        }
        let begun = Instant::now();
        let (mut connecting, mut streams) = (JoinSet::new(), Vec::with_capacity(plan.clients));
        for number in 0..plan.clients {
            if connecting.len() >= CONNECTING {
                streams.extend(next(&mut connecting).await.transpose()?);
            }
            let server = plan.servers[number % plan.servers.len()].clone();
            let id = format!("{}-{number}", plan.name);
            connecting.spawn(async move {
                match tokio::time::timeout(CONNECT, connect(&server, &id)).await {
                    Ok(stream) => Ok((number, stream?)),
                    Err(_) => {
                        let (address, source) = (server.address, io::ErrorKind::TimedOut.into());
                        Err(LoadError::Connect { address, source })
                    }
                }
            });
        }
        while let Some(stream) = next(&mut connecting).await {
            streams.push(stream?);
        }
        Ok(Self { plan: plan.clone(), streams, took: begun.elapsed() })
    }

    /// Publishes to the end of the plan; `tell` hears every second how it goes.
    pub async fn publish(self, mut tell: impl FnMut(Progress)) -> Report {
        let run = Arc::new(begin(self.plan, self.streams.len()));
        let mut clients = JoinSet::new();
        for (number, stream) in self.streams {
            clients.spawn(Client::new(Arc::clone(&run), number, stream).publish());
        }
        let mut report = Report::default();
        let mut told = Told { at: run.begin, answered: 0 };
        let mut tick = tokio::time::interval_at((run.begin + TELL_EVERY).into(), TELL_EVERY);
        loop {
            tokio::select! {
                ended = clients.join_next() => match ended {
                    Some(Ok((unanswered, result))) => {
                        report.unanswered += unanswered;
                        if let Err(error) = result {
                            report.closed += 1;
                            report.why.get_or_insert_with(|| error.to_string());
                        }
                    }
                    Some(Err(panicked)) => std::panic::resume_unwind(panicked.into_panic()),
                    None => break,
                },
                _ = tick.tick() => tell(told.progress(&run)),
            }
        }
        (report.acknowledged, report.latency) = run.recorder.read();
        report.sent = run.sent.load(Ordering::Relaxed);
        report.seconds = run.plan.time.as_secs_f64();
        report.rate = run.in_time.load(Ordering::Relaxed) as f64 / report.seconds;
        report
    }
}

/// Connects, publishes, and reports.
///
/// # Errors
/// When a client is not let in.
pub async fn run(plan: &Plan, tell: impl FnMut(Progress)) -> Result<Report, LoadError> {
    Ok(Clients::connect(plan).await?.publish(tell).await)
}

type Connected = Result<(usize, TcpStream), LoadError>;

async fn next(connecting: &mut JoinSet<Connected>) -> Option<Connected> {
    match connecting.join_next().await? {
        Ok(connected) => Some(connected),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn begin(plan: Plan, open: usize) -> Run {
    let millis = u64::try_from(clock::now().as_millis()).unwrap_or(0);
    Run {
        plan,
        recorder: Recorder::new(),
        sent: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        in_time: AtomicU64::new(0),
        open: AtomicU64::new(open as u64),
        begin: Instant::now() + PREPARE,
        begin_micros: millis * 1_000 + PREPARE.as_micros() as u64,
    }
}

/// What was told last.
struct Told {
    at: Instant,
    answered: u64,
}

impl Told {
    fn progress(&mut self, run: &Run) -> Progress {
        let (now, answered) = (Instant::now(), run.answered.load(Ordering::Relaxed));
        let seconds = now.duration_since(self.at).as_secs_f64();
        let rate = (answered - self.answered) as f64 / seconds.max(0.001);
        *self = Self { at: now, answered };
        Progress {
            seconds: now.saturating_duration_since(run.begin).as_secs_f64(),
            rate,
            in_flight: run.sent.load(Ordering::Relaxed).saturating_sub(answered),
            open: run.open.load(Ordering::Relaxed),
        }
    }
}
