//! What is tried, for how long, and what is said when it fails.

use std::cell::Cell;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::test_runner::{
    Config, RngAlgorithm, TestCaseError, TestCaseResult, TestError, TestRng, TestRunner,
};

use crate::corpus::{self, Input};
use crate::mutation::{self, Material};

/// How long a target runs unless `FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 8;
/// An input that takes this long is a failure: its cost must have grown faster than its size.
const INPUT_MAX: Duration = Duration::from_secs(5);
/// Inputs between two looks at the clock; each such batch has a seed of its own.
const BATCH: u32 = 100;
/// How often a failing input is tried to be made smaller.
const SHRINKS_MAX: u32 = 3_000;

/// How long, in milliseconds.
const SHRINK_MILLIS: u32 = 20_000;

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was read.
    Accepted,
    /// It was refused, as it should be.
    Refused,
}

impl Fate {
    /// Of what was accepted, or was not.
    pub const fn of(accepted: bool) -> Self {
        if accepted { Self::Accepted } else { Self::Refused }
    }
}

/// Something that reads what others wrote.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    name: &'static str,
    words: &'static [&'static str],
    bytes_max: usize,
}

/// What was tried.
#[derive(Debug, Default)]
struct Tally {
    tried: Cell<u64>,
    accepted: Cell<u64>,
}

impl Target {
    /// The target with the corpus `corpus/<name>/`, and words of its language for mutations. Inputs
    /// have at most `bytes_max` bytes.
    pub const fn new(name: &'static str, words: &'static [&'static str], bytes_max: usize) -> Self {
        Self { name, words, bytes_max }
    }

    /// Tries the corpus and mutations of it until the time is over.
    ///
    /// # Panics
    ///
    /// If `check` finds fault or panics, if there is no corpus, or if every input met the same fate:
    /// then the corpus shows nothing.
    pub fn run(self, check: impl Fn(&Input) -> Result<Fate, TestCaseError>) {
        let seeds = corpus::read(self.name)
            .unwrap_or_else(|error| panic!("{}: {error}", corpus::folder(self.name).display()));
        assert!(!seeds.is_empty(), "the corpus {} is empty", self.name);
        let tally = Tally::default();
        let check = |input: &Input| tally.count(&check, input);
        for seed in &seeds {
            check(seed).unwrap_or_else(|error| panic!("{seed:?}\n{error}"));
        }
        let (begun, seconds) = (Instant::now(), setting("FUZZ_SECONDS").unwrap_or(SECONDS));
        let first = setting("FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
        let mut seed = first;
        while begun.elapsed() < Duration::from_secs(seconds) {
            self.batch(seed, &seeds, check);
            seed = seed.wrapping_add(1);
        }
        tally.conclude(self.name, first, begun.elapsed());
    }

    fn batch(self, seed: u64, seeds: &[Input], check: impl Fn(&Input) -> TestCaseResult) {
        let config = Config {
            cases: BATCH,
            failure_persistence: None,
            max_shrink_iters: SHRINKS_MAX,
            max_shrink_time: SHRINK_MILLIS,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, rng(seed));
        let material = Material { seeds, words: self.words, bytes_max: self.bytes_max };
        let plans = mutation::any_plan(seeds.len());
        match runner.run(&plans, |plan| check(&material.mutated(&plan))) {
            Ok(()) => {}
            Err(TestError::Fail(reason, plan)) => {
                self.fail(seed, &material.mutated(&plan), &reason.to_string())
            }
            Err(error) => panic!("{}: {error}", self.name),
        }
    }

    fn fail(self, seed: u64, input: &Input, reason: &str) -> ! {
        let name = self.name;
        let kept = match keep(&format!("platziverse-fuzz-{name}-{seed}-{}", input.name), input) {
            Ok(path) => format!("kept as {}", path.display()),
            Err(error) => format!("not kept: {error}"),
        };
        let folder = corpus::folder(name);
        panic!(
            "{name}: {reason}\n  {input:?}\n  {kept}; copied into {} it is tried first\n  \
             again: FUZZ_SEED={seed} cargo test -p platziverse-fuzz -- {name}",
            folder.display()
        );
    }
}

impl Tally {
    fn count(
        &self,
        check: impl Fn(&Input) -> Result<Fate, TestCaseError>,
        input: &Input,
    ) -> TestCaseResult {
        let begun = Instant::now();
        let fate = check(input)?;
        if begun.elapsed() > INPUT_MAX {
            return Err(TestCaseError::fail(format!("it took {:?}", begun.elapsed())));
        }
        self.tried.set(self.tried.get() + 1);
        self.accepted.set(self.accepted.get() + u64::from(fate == Fate::Accepted));
        Ok(())
    }

    fn conclude(&self, name: &str, seed: u64, took: Duration) {
        let (tried, accepted) = (self.tried.get(), self.accepted.get());
        let (rate, share) = (tried as f64 / took.as_secs_f64(), 100 * accepted / tried);
        println!("{name}: {tried} inputs, {rate:.0}/s, {share} % accepted, FUZZ_SEED={seed}");
        assert!(accepted > 0, "{name}: nothing was accepted: the corpus shows only refusals");
        assert!(accepted < tried, "{name}: nothing was refused: the mutations change nothing");
    }
}

fn rng(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no setting of a service")]
fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number, not {text:?}")))
}

fn keep(name: &str, input: &Input) -> std::io::Result<PathBuf> {
    let path = std::env::temp_dir().join(name);
    std::fs::write(&path, &input.bytes)?;
    Ok(path)
}
