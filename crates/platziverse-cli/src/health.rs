//! `platziverse health`: asks services how they are, for people and for health checks of containers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args as ClapArgs;
use platziverse_config::{AGGREGATOR_OPS, GATEWAY_OPS, MOM_OPS, WORKER_OPS};
use serde_json::Value;

use crate::discovery::RunEnv;
use crate::output;
use crate::settings::Context;

/// The whole question, from looking up the name to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// Bytes of an answer that are read.
const ANSWER_MAX: u64 = 1 << 20;

/// The services, each with where it listens if nothing else is set and nothing else is known.
const SERVICES: [(&str, SocketAddr); 4] = [
    ("gateway", GATEWAY_OPS),
    ("worker", WORKER_OPS),
    ("mom", MOM_OPS),
    ("aggregator", AGGREGATOR_OPS),
];

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// What to ask [default: /readyz at ops.listen; where that is not set, of each service that
    /// scripts/up started, by .run/env; without that file, of each service at its own default,
    /// gateway 127.0.0.1:9101, worker 127.0.0.1:9102, mom 127.0.0.1:9104 and aggregator
    /// 127.0.0.1:9105]
    #[arg(long)]
    url: Option<Url>,
}

/// `http://host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    text: String,
    /// As the header `Host` has it.
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("http://").ok_or("it must begin with http://")?;
        if text.contains(|char: char| char.is_control() || char == ' ') {
            return Err("it contains a space or a control character".to_owned());
        }
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let port_at = authority.rfind(':').filter(|at| !authority[*at..].contains(']'));
        let (host, port) = match port_at {
            Some(at) => {
                let port = authority[at + 1..].parse().ok().filter(|port| *port != 0);
                (&authority[..at], port.ok_or("its port is not a number from 1 to 65535")?)
            }
            None => (authority, 80),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains('@') {
            return Err("it must be http://host:port/path".to_owned());
        }
        Ok(Self {
            text: text.to_owned(),
            authority: authority.to_owned(),
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }
}

impl Url {
    /// `/readyz` of who listens at `address`.
    fn readiness(address: SocketAddr) -> Self {
        let host = match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let (authority, path) = (SocketAddr::new(host, address.port()).to_string(), "/readyz");
        Self {
            text: format!("http://{authority}{path}"),
            authority,
            host: host.to_string(),
            port: address.port(),
            path: path.to_owned(),
        }
    }
}

pub(crate) fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    if let Some(url) = args.url {
        return one(url);
    }
    let in_force = context.load()?;
    if let Some(address) = in_force.settings().ops.listen {
        return one(Url::readiness(address));
    }
    let run_env = in_force.run_env().filter(|run_env| !run_env.services().is_empty());
    if context.verbose {
        let file = run_env.map(|run_env| run_env.path.display().to_string());
        output::whisper(&format!("Services: {}", file.as_deref().unwrap_or("built-in addresses")));
    }
    every_one(run_env.map_or_else(|| Ok(built_in()), started)?)
}

/// A service, with what to ask it.
type Asked = (String, Url);

fn built_in() -> Vec<Asked> {
    SERVICES.map(|(name, address)| (name.to_owned(), Url::readiness(address))).to_vec()
}

/// The services that `scripts/up` started.
fn started(run_env: &RunEnv) -> anyhow::Result<Vec<Asked>> {
    let asked = |(name, url): (String, &str)| {
        let url = format!("{}/readyz", url.trim_end_matches('/')).parse().map_err(|error| {
            let path = run_env.path.display();
            anyhow!("{path}: the address of {name} is not one: {error}")
        });
        Ok((name, url?))
    };
    run_env.services().into_iter().map(asked).collect()
}

/// Prints what one service answers, whole.
fn one(url: Url) -> anyhow::Result<()> {
    let text = url.text.clone();
    let (status, body) = answer(url)?;
    let end = if body.is_empty() || body.ends_with('\n') { "" } else { "\n" };
    output::print(&format!("{}{end}", output::lines(&body)))?;
    if !is_success(status) {
        bail!("{text} answers {status}");
    }
    Ok(())
}

/// Prints a line for each service.
fn every_one(services: Vec<Asked>) -> anyhow::Result<()> {
    let mut not_ready = Vec::new();
    for (name, url) in services {
        let address = url.authority.clone();
        let state = state(url);
        output::print(&format!("{name} at {address}: {}\n", output::one_line(&state)))?;
        if state != "ready" {
            not_ready.push(name);
        }
    }
    if not_ready.is_empty() { Ok(()) } else { bail!("not ready: {}", not_ready.join(", ")) }
}

/// `ready`, or what keeps it from being so.
fn state(url: Url) -> String {
    match answer(url) {
        Ok((status, _)) if is_success(status) => "ready".to_owned(),
        Ok((_, body)) => format!("not ready: {}", reasons(&body)),
        Err(error) => error.root_cause().to_string(),
    }
}

/// What is not ready, of the JSON of `/readyz`; an answer of anything else as it is.
fn reasons(body: &str) -> String {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    let dependencies = answer["dependencies"].as_object().into_iter().flatten();
    let reason = |(name, state): (&String, &Value)| {
        state.as_str().filter(|state| *state != "ready").map(|state| format!("{name}: {state}"))
    };
    let mut reasons: Vec<_> = dependencies.filter_map(reason).collect();
    if answer["draining"] == true {
        reasons.push("it is about to end".to_owned());
    }
    if reasons.is_empty() { body.trim().to_owned() } else { reasons.join("; ") }
}

fn answer(url: Url) -> anyhow::Result<(u16, String)> {
    let text = url.text.clone();
    let asking = || format!("asking {text}");
    let answer = within(DEADLINE, move || ask(&url)).with_context(asking)?;
    read(&answer).with_context(asking)
}

const fn is_success(status: u16) -> bool {
    matches!(status, 200..300)
}

/// A thread can be left behind, whatever it hangs in; looking up a name has no deadline.
fn within(
    deadline: Duration,
    ask: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
) -> anyhow::Result<Vec<u8>> {
    let (answer, answered) = mpsc::channel();
    std::thread::spawn(move || answer.send(ask()));
    match answered.recv_timeout(deadline) {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(anyhow!("no answer within {deadline:?}")),
    }
}

fn ask(url: &Url) -> io::Result<Vec<u8>> {
    let mut stream = connect(&url.host, url.port)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    let Url { authority, path, .. } = url;
    let question = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nAccept: */*\r\n\r\n");
    stream.write_all(question.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(answer)
}

fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, DEADLINE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Status and body of an answer of HTTP/1.0 or 1.1 (RFC 9112, section 2.1).
fn read(answer: &[u8]) -> anyhow::Result<(u16, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .filter(|(head, _)| head.starts_with("HTTP/1."))
        .context("the answer is not HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.get(..3)?.parse().ok());
    Ok((status.context("the answer has no status")?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, want: Result<(&str, u16, &str), &str>| {
            let url = text.parse::<Url>();
            let parts = url.as_ref().map(|url| (url.host.as_str(), url.port, url.path.as_str()));
            match want {
                Ok(want) => assert_eq!(parts, Ok(want), "{text}"),
                Err(want) => assert!(url.unwrap_err().contains(want), "{text}"),
            }
        };
        check("http://127.0.0.1:9100/readyz", Ok(("127.0.0.1", 9100, "/readyz")));
        check("http://h", Ok(("h", 80, "/")));
        check("http://[::1]:9/a?b:c", Ok(("::1", 9, "/a?b:c")));
        check("http://[::1]", Ok(("::1", 80, "/")));
        check("https://h/", Err("begin with http://"));
        check("http://h:0/", Err("port"));
        check("http://h:port/", Err("port"));
        check("http:///path", Err("http://host"));
        check("http://u@h/", Err("http://host"));
        check("http://h/a b", Err("space"));
        check("http://h/\r\nX: y", Err("space"));
    }

    #[test]
    fn a_listener_of_every_address_is_asked_on_loopback() {
        let check = |address: &str, want: &str| {
            let url = Url::readiness(address.parse().unwrap());
            assert_eq!(url.text.parse::<Url>().as_ref(), Ok(&url), "{address}");
            assert_eq!(url.text, want);
        };
        check("0.0.0.0:9100", "http://127.0.0.1:9100/readyz");
        check("[::]:9100", "http://[::1]:9100/readyz");
        check("192.0.2.1:1", "http://192.0.2.1:1/readyz");
    }

    #[test]
    fn each_service_that_was_started_is_asked() {
        let read = |text: &str| RunEnv::read("/x/.run/env".into(), text);
        let file = read("WORKER_OPS_URL='http://127.0.0.1:9102'\nGATEWAY_OPS_URL='http://h:1/'\n");
        let asked = started(&file).unwrap();
        let asked: Vec<_> = asked.iter().map(|(name, url)| (&**name, &*url.text)).collect();
        let want = [("gateway", "http://h:1/readyz"), ("worker", "http://127.0.0.1:9102/readyz")];
        assert_eq!(asked, want);
        let error = started(&read("GATEWAY_OPS_URL='h:1'\n")).unwrap_err().to_string();
        assert_eq!(
            error,
            "/x/.run/env: the address of gateway is not one: it must begin with http://"
        );
    }

    #[test]
    fn a_service_is_ready_not_ready_or_not_there() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::readiness(listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]).unwrap();
                let answer = format!("HTTP/1.0 {status}\r\n\r\nso so\n");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(state(url.clone()), "ready");
        assert_eq!(state(url.clone()), "not ready: so so");
        serving.join().unwrap();
        assert!(state(url).contains("refused"));
    }

    #[test]
    fn only_what_is_not_ready_is_told() {
        let check = |body: &str, want: &str| assert_eq!(reasons(body), want);
        check(
            r#"{"ready":false,"draining":true,"dependencies":{"a":"ready","b":"away","c":"slow"}}"#,
            "b: away; c: slow; it is about to end",
        );
        check("no\n", "no");
    }

    #[test]
    fn answers() {
        let check = |answer: &str, want: Option<(u16, &str)>| {
            let read = read(answer.as_bytes()).ok();
            assert_eq!(
                read.as_ref().map(|(status, body)| (*status, body.as_str())),
                want,
                "{answer}"
            );
        };
        check("HTTP/1.1 200 OK\r\nA: b\r\n\r\nready\n", Some((200, "ready\n")));
        check("HTTP/1.0 503\r\n\r\n", Some((503, "")));
        check("HTTP/1.0 x\r\n\r\n", None);
        check("SSH-2.0-OpenSSH\r\n\r\n", None);
        check("", None);
    }

    #[test]
    fn a_question_has_a_deadline() {
        let hang = || {
            let (_held, never) = mpsc::channel::<()>();
            let _ = never.recv();
            Ok(Vec::new())
        };
        assert!(within(Duration::from_millis(20), hang).is_err());
    }
}
