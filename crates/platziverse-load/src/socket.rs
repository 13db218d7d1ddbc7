//! A connection with what was read from it and what is to be written.

use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::wire::{self, Answer};

/// What may wait to be written, in bytes: more is not made before it is.
const UNWRITTEN_MAX: usize = 64 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// A connection with what was read from it and what is to be written.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    inbound: Vec<u8>,
    outbound: Vec<u8>,
    /// Of `outbound`.
    written: usize,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let inbound = Vec::with_capacity(READ_BYTES);
        Self { stream, inbound, outbound: Vec::new(), written: 0 }
    }

    /// Whether more may be made that is to be written.
    pub(crate) fn has_room(&self) -> bool {
        self.outbound.len() < UNWRITTEN_MAX
    }

    /// Where to append what [`Socket::flush`] is to write.
    pub(crate) fn outbound(&mut self) -> &mut Vec<u8> {
        &mut self.outbound
    }

    /// Writes as much as the connection takes without waiting.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.outbound.len() {
            match self.stream.try_write(&self.outbound[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.outbound.clear();
        self.written = 0;
        Ok(())
    }

    /// Waits until something was read, or until there is room for what is unwritten. Whoever stops
    /// waiting loses nothing.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) async fn wait(&mut self) -> io::Result<()> {
        let unwritten = self.written < self.outbound.len();
        let (mut reader, writer) = self.stream.split();
        tokio::select! {
            read = reader.read_buf(&mut self.inbound) => match read? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            },
            ready = writer.writable(), if unwritten => ready,
        }
    }

    /// Says DISCONNECT, after what is unwritten, as far as the connection takes it without waiting.
    ///
    /// # Errors
    /// When the connection has ended.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.outbound.extend(wire::DISCONNECT);
        self.flush()
    }

    /// Hands each packet that was read to `take`, with where its answer goes, until `take` says
    /// that it has enough.
    pub(crate) fn packets(&mut self, mut take: impl FnMut(Answer<'_>, &mut Vec<u8>) -> bool) {
        let (mut used, mut wants_more) = (0, true);
        while wants_more && let Some((answer, length)) = wire::first(&self.inbound[used..]) {
            used += length;
            wants_more = take(answer, &mut self.outbound);
        }
        self.inbound.drain(..used);
    }
}
