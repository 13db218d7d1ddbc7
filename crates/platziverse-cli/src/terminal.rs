//! The person at the terminal: questions, passwords, the width of the window.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::output;

/// Bytes of a password in CONNECT (MQTT 5: 1.5.6).
const PASSWORD_MAX: u64 = 65_535;

/// How many characters a line of the terminal that stdout is has.
pub(crate) fn width() -> Option<usize> {
    let stdout = io::stdout();
    let size = if stdout.is_terminal() { tcgetwinsize(stdout).ok() } else { None };
    size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// Asks the person at the terminal to agree to what cannot be undone. A failure if the answer is
/// no, or if there is no terminal.
pub(crate) async fn confirm(question: &str) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        bail!("nobody can be asked, as this is no terminal (give --yes to agree): {question}");
    }
    prompt(&format!("{question} [y/N] "));
    let answer = tokio::task::spawn_blocking(read_line).await??;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    // An answer that the end of input gave has no line break of its own.
    if !answer.ends_with('\n') {
        output::complain("");
    }
    bail!("Nothing was changed.")
}

/// A password: typed twice without echo, or all of what stdin has, without its last line break.
pub(crate) async fn password() -> anyhow::Result<Vec<u8>> {
    let password = if io::stdin().is_terminal() {
        let first = hidden("Password: ").await?;
        if hidden("The same again: ").await? != first {
            bail!("the two passwords differ");
        }
        first.into_bytes()
    } else {
        tokio::task::spawn_blocking(piped).await??
    };
    match u64::try_from(password.len()) {
        Ok(0) => bail!("the password is empty"),
        Ok(length) if length <= PASSWORD_MAX => Ok(password),
        _ => bail!("the password has more than {PASSWORD_MAX} bytes, which MQTT cannot carry"),
    }
}

async fn hidden(question: &str) -> anyhow::Result<String> {
    // Held here and not by the thread that reads, so that an interrupted command restores it too.
    let silence = Silence::start()?;
    prompt(question);
    let line = tokio::task::spawn_blocking(read_line).await?;
    drop(silence);
    Ok(line?.trim_end_matches(['\r', '\n']).to_owned())
}

/// The terminal does not show what is typed as long as this lives.
struct Silence {
    before: Termios,
}

impl Silence {
    fn start() -> anyhow::Result<Self> {
        let before = tcgetattr(io::stdin()).context("reading the terminal's modes")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent).context("turning echo off")?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // Whoever sees that this failed can do no more than `stty echo`.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        output::complain("");
    }
}

fn prompt(question: &str) {
    let mut stderr = io::stderr();
    // Without stderr the answer is still read.
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
}

fn read_line() -> anyhow::Result<String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("reading the answer")?;
    Ok(line)
}

fn piped() -> anyhow::Result<Vec<u8>> {
    let mut password = Vec::new();
    let line_break = 2;
    let mut input = io::stdin().lock().take(PASSWORD_MAX + line_break + 1);
    input.read_to_end(&mut password).context("reading the password from standard input")?;
    Ok(without_line_break(password))
}

fn without_line_break(mut bytes: Vec<u8>) -> Vec<u8> {
    for last in [b'\n', b'\r'] {
        if bytes.last() == Some(&last) {
            bytes.pop();
        } else if last == b'\n' {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_break_is_no_part_of_a_password() {
        let check = |input: &str, want: &str| {
            assert_eq!(without_line_break(input.into()), want.as_bytes(), "{input:?}");
        };
        check("secret", "secret");
        check("secret\n", "secret");
        check("secret\r\n", "secret");
        check("secret\r", "secret\r");
        check("secret\n\n", "secret\n");
        check(" a b \n", " a b ");
        check("\n", "");
    }
}
