//! What the settings are read from.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use crate::{environment, older};

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
}

impl Layers {
    /// The environment and the working directory of this process, and `file`, which an argument
    /// (`--config`) names.
    pub fn from_process(file: Option<PathBuf>) -> Self {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let env = std::env::vars_os()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| environment::is_ours(name) || older::find(name).is_some())
            .collect();
        Self { file, env, dir: PathBuf::new() }
    }

    /// The file to read, if there is one.
    pub(crate) fn chosen(&self) -> Option<PathBuf> {
        let named = self.file.clone().or_else(|| {
            let variable = self.env.iter().find(|(name, _)| name == environment::CONFIG);
            variable.map(|(_, path)| PathBuf::from(path)).filter(|p| !p.as_os_str().is_empty())
        });
        match named {
            Some(path) => Some(self.dir.join(path)),
            None => FILES.iter().map(|name| self.dir.join(name)).find(|path| path.exists()),
        }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Layers")
            .field("file", &self.file)
            .field("env", &names)
            .field("dir", &self.dir)
            .finish()
    }
}
