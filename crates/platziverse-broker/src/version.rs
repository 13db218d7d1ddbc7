//! The server's version, from the first frame that it sends: lapin does not tell it.

use std::io;
use std::time::Duration;

use platziverse_config::AmqpConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::BrokerError;

/// The oldest version whose quorum queues have what is used here: dead-lettering at least once.
const OLDEST: (u32, u32) = (3, 10);
const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Connection.Start is a few hundred bytes.
const START_BYTES_MAX: usize = 16 << 10;
/// Type, channel and size of a frame (AMQP 0-9-1, 4.2.3).
const FRAME_HEADER: usize = 7;

/// Checks that the server is new enough. What cannot be found out, as behind TLS, passes: it fails
/// later, where the error is better.
pub(crate) async fn check(config: &AmqpConfig) -> Result<(), BrokerError> {
    if config.tls {
        return Ok(());
    }
    let patience = config.connect_timeout;
    match timeout(patience, connection_start(config)).await {
        Ok(Ok(frame)) => judge(config, &frame),
        Ok(Err(error)) => Err(BrokerError::connecting(config, error.into())),
        Err(_) => Err(timed_out(config, patience)),
    }
}

fn timed_out(config: &AmqpConfig, after: Duration) -> BrokerError {
    BrokerError::ConnectTimeout { address: config.address(), after }
}

async fn connection_start(config: &AmqpConfig) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((config.host.as_str(), config.port)).await?;
    stream.write_all(PROTOCOL_HEADER).await?;
    let mut header = [0; FRAME_HEADER];
    stream.read_exact(&mut header).await?;
    let [_, _, _, size @ ..] = header;
    let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
    let mut frame = vec![0; size.min(START_BYTES_MAX)];
    stream.read_exact(&mut frame).await?;
    Ok(frame)
}

fn judge(config: &AmqpConfig, frame: &[u8]) -> Result<(), BrokerError> {
    match version(frame) {
        Some(version) if is_too_old(&version) => {
            Err(BrokerError::TooOld { address: config.address(), version })
        }
        _ => Ok(()),
    }
}

/// The server property `version`: a short string, the type `S`, and a long string.
fn version(frame: &[u8]) -> Option<String> {
    const NAME: &[u8] = b"\x07versionS";
    let at = frame.windows(NAME.len()).position(|window| window == NAME)?;
    let rest = frame.get(at + NAME.len()..)?;
    let (size, rest) = rest.split_first_chunk()?;
    let text = rest.get(..usize::try_from(u32::from_be_bytes(*size)).ok()?)?;
    String::from_utf8(text.to_vec()).ok()
}

fn is_too_old(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let check = |version: &str, too_old| assert_eq!(is_too_old(version), too_old, "{version}");
        check("3.10.8", false);
        check("3.9.29", true);
        check("3.8.2", true);
        check("4.0.5", false);
        check("2.8", true);
        check("4.1.0-beta.1", false);
        check("unknown", false);
    }

    #[test]
    fn read_from_the_frame() {
        let frame = b"\0\x0a\0\x0a\0\x09\0\0\0\x20\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8";
        assert_eq!(version(frame), Some("3.10.8".to_owned()));
        assert_eq!(version(b"\x07versionS\0\0\0\x063.1"), None);
        assert_eq!(version(b""), None);
    }
}
