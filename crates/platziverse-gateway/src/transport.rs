//! Bytes in, bytes out: one TCP connection, without buffers while it is idle.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use ntex_bytes::{BytePages, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How much is read at a time, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// How many pages go into one system call.
const SLICES: usize = 16;
/// How much may wait to be written before the session is told to hold back, in bytes.
const UNSENT_BYTES_MAX: usize = 256 * 1024;
/// How long a client may take nothing of what waits for it.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// How long the other side may take to close.
const FAREWELL: Duration = Duration::from_secs(1);

thread_local! {
    // One for each I/O thread: a connection holds bytes of its own only for a packet whose end
    // has not arrived.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A TCP connection with what has been read of it and what is still to be written.
#[derive(Debug)]
pub(crate) struct Transport {
    stream: TcpStream,
    /// Read, and not decoded yet.
    pub(crate) inbound: BytesMut,
    /// Encoded, and not written yet.
    pub(crate) outbound: BytePages,
    /// When something was written last, or began to wait.
    progress: Instant,
}

impl Transport {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let (inbound, outbound) = (BytesMut::new(), BytePages::default());
        Self { stream, inbound, outbound, progress: Instant::now() }
    }

    /// Waits until there is something to read, if `reading`, or room to write what waits.
    /// Resolves to whether it is the former.
    pub(crate) async fn ready(&self, reading: bool) -> io::Result<bool> {
        let interest = match (reading, self.outbound.is_empty()) {
            (true, true) => Interest::READABLE,
            (true, false) => Interest::READABLE | Interest::WRITABLE,
            (false, false) => Interest::WRITABLE,
            (false, true) => return std::future::pending().await,
        };
        self.stream.ready(interest).await.map(|ready| reading && ready.is_readable())
    }

    /// Reads once. `Ok(false)` is the end of the stream.
    pub(crate) fn read(&mut self) -> io::Result<bool> {
        SCRATCH.with_borrow_mut(|scratch| match self.stream.try_read(scratch) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.inbound.extend_from_slice(&scratch[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error),
        })
    }

    /// Gives the read buffer back if it is empty.
    pub(crate) fn release(&mut self) {
        if self.inbound.is_empty() {
            self.inbound = BytesMut::new();
        }
    }

    /// Writes as much as the client takes.
    pub(crate) fn flush(&mut self, now: Instant) -> io::Result<()> {
        if self.outbound.is_empty() {
            self.progress = now;
            return Ok(());
        }
        while !self.outbound.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, page) in slices.iter_mut().zip(self.outbound.iter()) {
                *slice = IoSlice::new(page);
                used += 1;
            }
            match self.stream.try_write_vectored(&slices[..used]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.outbound.advance_to(count);
                    self.progress = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.outbound = BytePages::default();
        Ok(())
    }

    /// Whether more may be put into `outbound`.
    pub(crate) fn is_writable(&self) -> bool {
        self.outbound.len() < UNSENT_BYTES_MAX
    }

    /// When a client that takes nothing of what waits for it is given up.
    pub(crate) fn write_deadline(&self) -> Option<Instant> {
        (!self.outbound.is_empty()).then(|| self.progress + STALLED_MAX)
    }

    /// Says to the client that nothing more comes, and takes what it still sends for a moment: to
    /// close on unread bytes would destroy the last word on its way.
    pub(crate) async fn finish(mut self) {
        use tokio::io::AsyncWriteExt as _;
        self.inbound = BytesMut::new();
        let farewell = async {
            self.stream.shutdown().await?;
            while self.stream.readable().await.is_ok() && self.read()? {
                self.inbound = BytesMut::new();
            }
            io::Result::Ok(())
        };
        // Whatever happens, the connection is over.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}
