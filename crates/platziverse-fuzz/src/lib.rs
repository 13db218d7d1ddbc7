//! Fuzzing that runs under `cargo test`, on the stable toolchain.
//!
//! A [`Target`] takes the files of `corpus/<name>/` one by one: first as they are, then mutated, for
//! `FUZZ_SECONDS` seconds (8). Its check says whether the input was accepted, or what is wrong with
//! how it was treated; a panic is wrong too. What fails is made smaller, shown and kept in a file;
//! copied into the corpus, it is tried first ever after.
//!
//! `FUZZ_SEED` repeats a run: the same seed makes the same inputs in the same order. Each failure
//! names the one that leads to it at once.
//!
//! ```sh
//! cargo test -p platziverse-fuzz                                             # a minute at most
//! FUZZ_SECONDS=600 cargo test --release -p platziverse-fuzz -- --nocapture   # ten minutes each
//! FUZZ_SEED=1234 cargo test -p platziverse-fuzz -- payload                   # once more
//! ```

mod corpus;
mod mutation;
mod target;

pub use corpus::Input;
pub use target::{Fate, Target};
