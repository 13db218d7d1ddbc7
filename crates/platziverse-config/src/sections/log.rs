//! `log`: what is logged, and how it looks.

use serde::{Deserialize, Serialize};

use crate::problem::Problems;
use crate::schema::{self, Key, Kind};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// What is logged, and how it looks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A level, or directives as of `EnvFilter`: `info,platziverse_gateway=debug`.
    pub level: String,
    /// How log lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

pub(crate) const NAME: &str = "log";

pub(crate) const KEYS: &[Key] = &[
    Key::new("level", Kind::Directives),
    Key::new("format", Kind::Choice(&["auto", "json", "text"])),
];

impl LogConfig {
    /// Adds what is wrong here to `problems`.
    pub(crate) fn validate(&self, problems: &mut Problems) {
        schema::check_section(NAME, KEYS, self, problems);
    }
}
