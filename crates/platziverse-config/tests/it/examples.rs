use std::path::{Path, PathBuf};

use platziverse_config::{Layers, Settings};

use crate::Dir;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

fn example() -> String {
    std::fs::read_to_string(deploy().join("platziverse.toml")).unwrap()
}

/// The setting that a commented line has; prose begins with a space.
fn setting(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix('#').filter(|line| !line.starts_with(' '))?;
    line.split_once(" = ")
}

/// The example with the settings uncommented for which `wanted` holds.
fn uncommented(wanted: impl Fn(&str) -> bool) -> String {
    let example = example();
    let lines = example.lines().map(|line| match setting(line) {
        Some((name, _)) if wanted(name) => &line[1..],
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_example_loads() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(deploy())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml" || end == "json"))
        .collect();
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        let layers = Layers { file: Some(file), ..Layers::default() };
        if let Err(errors) = Settings::load(&layers) {
            panic!("{errors}");
        }
    }
}

#[test]
fn the_example_has_every_setting_once_and_no_other() {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in example().lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((name, _)) = setting(line) {
            found.push(format!("{section}.{name}"));
        }
    }
    let known: Vec<String> = Dir::new().load(&[]).show().into_iter().map(|row| row.key).collect();
    found.sort();
    let mut sorted = known;
    sorted.sort();
    assert_eq!(found, sorted);
}

#[test]
fn the_example_shows_the_defaults() {
    // These have none: what stands there is an example.
    let examples = [
        "gateway.users",
        "gateway.routes",
        "ops.listen",
        "database.password",
        "mom.key",
        "aggregator.jwt_secret",
        "aggregator.jwt_public_key",
        "aggregator.session_secret",
    ];
    let dir = Dir::new().with("platziverse.toml", &uncommented(|name| name != "url"));
    let defaults = Dir::new().load(&[]).show();
    for (shown, default) in dir.load(&[]).show().into_iter().zip(defaults) {
        if !examples.contains(&&*shown.key) {
            assert_eq!(shown.text, default.text, "{}", shown.key);
        }
    }
    Dir::new().with("platziverse.toml", &uncommented(|_| true)).load(&[]);
}
