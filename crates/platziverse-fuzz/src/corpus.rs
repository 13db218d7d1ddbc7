//! The inputs that mutation begins with.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// More of an input is not shown.
const SHOWN_BYTES_MAX: usize = 2_000;

/// One input.
#[derive(Clone, PartialEq, Eq)]
pub struct Input {
    /// The file of the corpus that it came from. Its ending may say what it is.
    pub name: String,
    /// What is to be read.
    pub bytes: Vec<u8>,
}

impl Input {
    /// The bytes as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.bytes[..self.bytes.len().min(SHOWN_BYTES_MAX)];
        let more = self.bytes.len() - shown.len();
        write!(f, "{}: b\"{}\"", self.name, shown.escape_ascii())?;
        if more > 0 { write!(f, " and {more} more bytes") } else { Ok(()) }
    }
}

/// Where the corpus of a target is.
pub(crate) fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Every file of a target's corpus, in the order of the names: a seed finds the same ones again.
pub(crate) fn read(target: &str) -> io::Result<Vec<Input>> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder(target))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        inputs.push(Input { name, bytes: fs::read(entry.path())? });
    }
    inputs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(inputs)
}
