//! The crate from outside: layers, errors, what is shown, and the example files.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod errors;
mod examples;
mod layers;
mod show;
mod urls;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use platziverse_config::{Layers, Loaded, Settings};

/// A directory with settings in it, removed at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("platziverse-config-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(self, name: &str, text: &str) -> Self {
        std::fs::write(self.0.join(name), text).unwrap();
        self
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn layers(&self, env: &[(&str, &str)]) -> Layers {
        let env = env.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        Layers { env, dir: self.0.clone(), ..Layers::default() }
    }

    #[track_caller]
    fn load(&self, env: &[(&str, &str)]) -> Loaded {
        Settings::load(&self.layers(env)).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// One line for each problem, without the directory.
    #[track_caller]
    fn problems(&self, env: &[(&str, &str)]) -> Vec<String> {
        let errors = Settings::load(&self.layers(env)).expect_err("it must not load");
        let here = format!("{}/", self.0.display());
        errors.problems().iter().map(|problem| problem.to_string().replace(&here, "")).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
