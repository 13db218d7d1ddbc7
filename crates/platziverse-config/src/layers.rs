//! What the settings are read from.

use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::origin::Origin;
use crate::values::{Assignment, Layer};
use crate::{environment, schema};

/// Found in the working directory; the first that exists is read.
const FILES: [&str; 2] = ["platziverse.toml", "settings.json"];

/// What the settings are read from, over the built-in defaults. Tests fill it by hand; `Debug` shows
/// names of variables only.
#[derive(Clone, Default)]
pub struct Layers {
    /// The file that an argument names. Without it `PLATZIVERSE_CONFIG` counts, then `dir`.
    pub file: Option<PathBuf>,
    /// The environment, name and value. Variables that are not ours are ignored.
    pub env: Vec<(String, String)>,
    /// Where `platziverse.toml` or `settings.json` may be, and where relative paths begin.
    pub dir: PathBuf,
    /// What a program knows besides, the text of each setting with its whole name (`amqp.url`) and
    /// where it was found. Wins over the environment.
    pub found: Vec<(String, String, Origin)>,
}

/// The file to read.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) file: Option<PathBuf>,
    /// One that would be read if the other were not there.
    pub(crate) passed_over: Option<PathBuf>,
}

impl Layers {
    /// The environment and the working directory of this process, and `file`, which an argument
    /// (`--config`) names.
    pub fn from_process(file: Option<PathBuf>) -> Self {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let env = std::env::vars_os()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| environment::is_ours(name) || environment::is_older(name))
            .collect();
        Self { file, env, ..Self::default() }
    }

    /// The layer of what a program knows besides.
    pub(crate) fn found(&self) -> Layer {
        let assignment = |(key, text, origin): &(String, String, Origin)| {
            let value = schema::find(key)?.kind.read(text);
            Some(Assignment { key: key.clone(), value, origin: origin.clone() })
        };
        let newer = self.found.iter().filter_map(assignment).collect();
        Layer { newer, ..Layer::default() }
    }

    /// The file to read, if there is one.
    pub(crate) fn chosen(&self) -> Chosen {
        let named = self.file.clone().or_else(|| {
            let variable = self.env.iter().find(|(name, _)| name == environment::CONFIG);
            variable.map(|(_, path)| PathBuf::from(path)).filter(|p| !p.as_os_str().is_empty())
        });
        if let Some(path) = named {
            return Chosen { file: Some(self.dir.join(path)), passed_over: None };
        }
        // What is there but cannot be looked at, as a link that leads nowhere, is chosen too: it is
        // an error when it is read.
        let is_there = |path: &PathBuf| {
            !path.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
        };
        let mut there = FILES.iter().map(|name| self.dir.join(name)).filter(is_there);
        Chosen { file: there.next(), passed_over: there.next() }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Layers")
            .field("file", &self.file)
            .field("env", &names)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}
