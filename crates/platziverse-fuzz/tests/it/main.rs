//! Everything that reads what others wrote, under mutated inputs. See the library for how it runs.

#![expect(clippy::expect_used, reason = "a test that cannot go on says why and fails")]

mod limits;

mod config;
mod envelope;
mod frames;
mod payload;
mod record;
mod topic;
