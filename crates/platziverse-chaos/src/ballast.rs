//! A file that leaves no room on a disk.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

const CHUNK: usize = 1 << 20;
/// A disk that takes more than this is not the small one that was meant.
const CHUNKS_MAX: usize = 1024;

/// The file, which goes when this is dropped.
#[derive(Debug)]
pub struct Ballast(PathBuf);

impl Ballast {
    /// Fills the disk of a directory.
    pub fn fill(directory: &Path) -> Result<Self, String> {
        let path = directory.join("ballast");
        let explain = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut file = File::create(&path).map_err(explain)?;
        let ballast = Self(path.clone());
        let mut chunk = vec![b'x'; CHUNK];
        for _ in 0..CHUNKS_MAX {
            // Down to the last page.
            while file.write_all(&chunk).is_err() {
                chunk.truncate(chunk.len() / 2);
                if chunk.len() < 512 {
                    return Ok(ballast);
                }
            }
        }
        Err(format!("{} is no small disk: it took {CHUNKS_MAX} MB", directory.display()))
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // A later fill writes over it.
        let _ = std::fs::remove_file(&self.0);
    }
}
