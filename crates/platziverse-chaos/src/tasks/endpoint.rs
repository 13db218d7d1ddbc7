//! The service that `http.request` calls: it counts the calls of each task, and can be told to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

/// How long a slow call takes.
const SLOW: Duration = Duration::from_millis(300);
/// How long a request may take to arrive.
const REQUEST: Duration = Duration::from_secs(10);
/// More than a request here has, in bytes.
const REQUEST_MAX: u64 = 16 << 10;

/// The calls for one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// The idempotency keys that they had.
    pub keys: BTreeSet<String>,
    /// How many there were.
    pub count: u64,
    /// To how many of them the answer was 200.
    pub well: u64,
}

#[derive(Debug, Default)]
struct Desk {
    calls: BTreeMap<u64, Calls>,
    fails_until: Option<Instant>,
    /// Calls that failed because of that.
    failed: u64,
    /// Requests that no task sends.
    strange: Vec<String>,
}

/// The service; it ends when this is dropped.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    desk: Arc<Mutex<Desk>>,
    task: JoinHandle<()>,
}

impl Endpoint {
    /// Listens on a port of its own on loopback.
    #[expect(clippy::disallowed_methods, reason = "the drop ends the task")]
    pub async fn start() -> Result<Self, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(|error| format!("the service of tasks: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let desk = Arc::<Mutex<Desk>>::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&desk)));
        Ok(Self { address, desk, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers everything with 503 from now on, for this time.
    pub fn fail_for(&self, time: Duration) {
        lock(&self.desk).fails_until = Some(Instant::now() + time);
    }

    /// How many calls have failed because it was told to.
    pub fn failed(&self) -> u64 {
        lock(&self.desk).failed
    }

    /// The calls for each task, by its number.
    pub fn calls(&self) -> BTreeMap<u64, Calls> {
        lock(&self.desk).calls.clone()
    }

    /// Whether a task from this number on was answered with 200.
    pub fn has_answered_from(&self, number: u64) -> bool {
        lock(&self.desk).calls.range(number..).any(|(_, calls)| calls.well > 0)
    }

    /// Requests that no task sends.
    pub fn strange(&self) -> Vec<String> {
        lock(&self.desk).strange.clone()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, desk: Arc<Mutex<Desk>>) {
    // Dropped with this task, it ends them.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&desk)))),
                // Out of file descriptors, say: that may pass.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers one request.
async fn serve(mut stream: TcpStream, desk: Arc<Mutex<Desk>>) {
    // A worker that was killed in the middle of a request has not called.
    let Ok(Ok(Some(request))) = timeout(REQUEST, read(&mut stream)).await else { return };
    if request.path == "slow" {
        sleep(SLOW).await;
    }
    let (status, body) = lock(&desk).answer(&request, Instant::now());
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // Whoever asked may have gone: it asks again.
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// What is asked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    path: String,
    number: u64,
    key: String,
}

impl Desk {
    fn answer(&mut self, request: &Request, now: Instant) -> (&'static str, String) {
        let fails = self.fails_until.is_some_and(|until| now < until);
        let calls = self.calls.entry(request.number).or_default();
        calls.keys.insert(request.key.clone());
        calls.count += 1;
        if fails {
            self.failed += 1;
            return ("503 Service Unavailable", "later".to_owned());
        }
        match request.path.as_str() {
            "well" | "slow" => {
                calls.well += 1;
                ("200 OK", request.number.to_string())
            }
            "vain" => ("503 Service Unavailable", "never".to_owned()),
            "refused" => ("404 Not Found", "no".to_owned()),
            other => {
                self.strange.push(format!("the service was asked for {other}"));
                ("404 Not Found", "no".to_owned())
            }
        }
    }
}

/// Reads a request to its end.
async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Request>> {
    let mut lines = BufReader::new(stream.take(REQUEST_MAX));
    let (mut head, mut line) = (Vec::new(), String::new());
    while lines.read_line(&mut line).await? > 0 && !line.trim_end().is_empty() {
        head.push(line.trim_end().to_owned());
        line.clear();
    }
    let mut body = vec![0; length(&head)];
    lines.read_exact(&mut body).await?;
    Ok(parse(&head))
}

fn length(head: &[String]) -> usize {
    let length = header(head, "content-length").and_then(|value| value.parse().ok());
    // More than is read is no request of ours.
    length.unwrap_or(0).min(REQUEST_MAX as usize)
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    head.iter().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// `POST /well/17 HTTP/1.1`, and its headers.
fn parse(head: &[String]) -> Option<Request> {
    let (path, number) = head.first()?.split(' ').nth(1)?.strip_prefix('/')?.split_once('/')?;
    let key = header(head, "idempotency-key").unwrap_or_default().to_owned();
    Some(Request { path: path.to_owned(), number: number.parse().ok()?, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_request_is_read() {
        let lines = head(&["POST /well/17 HTTP/1.1", "Idempotency-Key: k", "content-length: 3"]);
        let want = Request { path: "well".to_owned(), number: 17, key: "k".to_owned() };
        assert_eq!((parse(&lines), length(&lines)), (Some(want), 3));
        assert_eq!(parse(&head(&["GET / HTTP/1.1"])), None);
    }

    #[test]
    fn calls_are_counted_and_failed_for_a_time() {
        let mut desk = Desk::default();
        let call = |path: &str, key: &str| Request {
            path: path.to_owned(),
            number: 1,
            key: key.to_owned(),
        };
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        desk.fails_until = Some(now + second);
        assert!(desk.answer(&call("well", "a"), now).0.starts_with("503"));
        let later = now + second;
        assert_eq!(desk.answer(&call("well", "b"), later), ("200 OK", "1".to_owned()));
        let keys = ["a".to_owned(), "b".to_owned()].into();
        assert_eq!(desk.calls[&1], Calls { keys, count: 2, well: 1 });
        assert_eq!((desk.failed, desk.strange.len()), (1, 0));
        desk.answer(&call("elsewhere", "a"), later);
        assert_eq!(desk.strange.len(), 1);
    }
}
