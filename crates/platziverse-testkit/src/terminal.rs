//! A terminal of a test's own, for what programs do only where a person sits.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

/// Both ends of a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    person: File,
    program: OwnedFd,
}

impl Terminal {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let person = openpt(flags)?;
        grantpt(&person)?;
        unlockpt(&person)?;
        let program = ioctl_tiocgptpeer(&person, flags)?;
        Ok(Self { person: person.into(), program })
    }

    /// What a program is to have for its standard input, output or error.
    pub(crate) fn stdio(&self) -> io::Result<Stdio> {
        self.program.try_clone().map(Stdio::from)
    }

    /// Types; a program that does not read yet finds it later.
    pub(crate) fn type_in(&mut self, text: &str) -> io::Result<()> {
        self.person.write_all(text.as_bytes())
    }

    /// All that is shown, what was typed included, until the last program has let go of it.
    pub(crate) fn shown(mut self) -> String {
        drop(self.program);
        let mut shown = Vec::new();
        // It ends with an error, as a terminal does.
        let _ = self.person.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).replace("\r\n", "\n")
    }
}
