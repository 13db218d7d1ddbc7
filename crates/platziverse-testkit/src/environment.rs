//! What the tests are given from outside: addresses, and where the programs are.

use std::path::PathBuf;

/// A variable that `scripts/test` sets.
#[expect(clippy::disallowed_methods, reason = "the testkit is no service: this is its own input")]
pub(crate) fn required(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!(
            "{name} is not set: these tests need RabbitMQ and PostgreSQL. Run scripts/test, which \
             starts both and sets it"
        ),
    }
}

/// Variables that programs need whatever they are, and no others.
#[expect(clippy::disallowed_methods, reason = "child processes get these and nothing else")]
pub(crate) fn inherited() -> Vec<(&'static str, String)> {
    let names = ["PATH", "HOME", "RUST_BACKTRACE", "LLVM_PROFILE_FILE", "LD_LIBRARY_PATH"];
    names.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?))).collect()
}

/// A variable that `scripts/test` sets and that can be done without.
#[expect(clippy::disallowed_methods, reason = "the testkit is no service: this is its own input")]
pub(crate) fn optional(name: &str) -> Option<PathBuf> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A program of this workspace, or `examples/…`: in `TEST_PROGRAMS`, else beside the running test or program.
pub fn program(name: &str) -> PathBuf {
    let program = optional("TEST_PROGRAMS").unwrap_or_else(beside_the_test).join(name);
    assert!(
        program.exists(),
        "{} is missing: build it first with `cargo build --workspace --bins` (or `--examples`), or run \
         scripts/test",
        program.display()
    );
    program
}

/// Cargo puts a test into `target/<profile>/deps`, and a program into `target/<profile>`.
fn beside_the_test() -> PathBuf {
    let running = std::env::current_exe().expect("the running program has a path");
    let folder = running.parent().expect("a program is in a folder");
    let profile = folder.parent().filter(|_| folder.ends_with("deps"));
    profile.unwrap_or(folder).to_owned()
}
