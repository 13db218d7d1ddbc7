//! Rules of the tree that no lint knows.

use std::fs;
use std::path::{Path, PathBuf};

/// A file longer than this is more than one concept.
const LINES_MAX: usize = 600;

/// What each crate may depend on, among ours: when it is built, but for [`TESTS_ALONE`].
const LAYERS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("config", &["protocol"]),
    ("service", &["config", "protocol"]),
    ("broker", &["config", "protocol", "service"]),
    ("store", &["config", "protocol", "service"]),
    ("rpc", &[]),
    ("mom", &["broker", "config", "protocol", "rpc", "service", "store"]),
    ("client", &["rpc"]),
    ("gateway", &["broker", "config", "protocol", "service"]),
    ("aggregator", &["broker", "config", "protocol", "service"]),
    ("kit", &["broker", "config", "protocol", "service"]),
    ("worker", &["broker", "config", "protocol", "service", "store"]),
    ("load", &["service"]),
    ("cli", &["broker", "client", "config", "load", "protocol", "service", "store"]),
    ("testkit", &[]),
    ("bench", &["client", "load", "testkit"]),
    ("chaos", &["broker", "client", "config", "protocol", "testkit"]),
    ("fuzz", &["broker", "config", "gateway", "protocol", "worker"]),
];

/// This crate is nothing but its tests: what they depend on counts.
const TESTS_ALONE: &str = "fuzz";

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn crates_depend_in_one_direction() {
    for folder in fs::read_dir(crates()).unwrap().flatten() {
        let folder = folder.file_name().to_string_lossy().into_owned();
        let known = |(name, _): &(&str, _)| folder == format!("platziverse-{name}");
        assert!(LAYERS.iter().any(known), "{folder} is missing in LAYERS");
    }
    for (name, allowed) in LAYERS {
        let manifest = crates().join(format!("platziverse-{name}/Cargo.toml"));
        let manifest = fs::read_to_string(&manifest).unwrap();
        let built = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        let judged = if *name == TESTS_ALONE { &manifest } else { built };
        let ours = judged.lines().filter_map(|line| line.strip_prefix("platziverse-"));
        for dependency in ours.filter_map(|line| line.split(['.', ' ']).next()) {
            assert!(allowed.contains(&dependency), "{name} must not know {dependency}");
        }
    }
}

#[test]
fn a_file_is_one_concept() {
    let mut files = Vec::new();
    sources(&crates(), &mut files);
    assert!(files.len() > 50, "the sources were not found");
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let vague = ["util", "utils", "helper", "helpers", "misc", "common"];
        assert!(!vague.contains(&name.as_str()), "{} has no concept in its name", file.display());
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", file.display());
    }
}
