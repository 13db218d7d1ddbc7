//! `platziverse health`: asks a service how it is, for health checks of containers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args as ClapArgs;

use crate::output;

/// The whole question, from looking up the name to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// Bytes of an answer that are read.
const ANSWER_MAX: u64 = 1 << 20;

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// What to ask: /readyz of the service's ops.listen
    #[arg(long, default_value = "http://127.0.0.1:9100/readyz")]
    url: Url,
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

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let url = args.url.text.clone();
    let asking = || format!("asking {url}");
    let answer = within(DEADLINE, move || ask(&args.url)).with_context(asking)?;
    let (status, body) = read(&answer).with_context(asking)?;
    let end = if body.is_empty() || body.ends_with('\n') { "" } else { "\n" };
    output::print(&format!("{}{end}", output::lines(&body)))?;
    if !(200..300).contains(&status) {
        bail!("{url} answers {status}");
    }
    Ok(())
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
