//! What each setting may be.

use serde::Serialize;
use serde_json::Value;

use crate::kind;
use crate::problem::{Problem, Problems};
use crate::sections::{aggregator, amqp, database, gateway, ingest, log, mom, ops, tasks, worker};

pub(crate) use crate::kind::Kind;

/// One setting of a section, or one field of a row.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) secret: bool,
    pub(crate) optional: bool,
}

impl Key {
    pub(crate) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, secret: false, optional: false }
    }

    /// Never shown.
    pub(crate) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// May be unset (a section's) or left out (a row's).
    pub(crate) const fn optional(mut self) -> Self {
        self.optional = true;
        self
    }
}

/// Every section with its settings, in the order in which they are shown.
pub(crate) const SECTIONS: &[(&str, &[Key])] = &[
    (amqp::NAME, amqp::KEYS),
    (database::NAME, database::KEYS),
    (gateway::NAME, gateway::KEYS),
    (worker::NAME, worker::KEYS),
    (ingest::NAME, ingest::KEYS),
    (tasks::NAME, tasks::KEYS),
    (mom::NAME, mom::KEYS),
    (aggregator::NAME, aggregator::KEYS),
    (ops::NAME, ops::KEYS),
    (log::NAME, log::KEYS),
];

/// Every setting with its whole name, such as `amqp.host`.
pub(crate) fn all() -> impl Iterator<Item = (String, &'static Key)> {
    SECTIONS
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |k| (format!("{section}.{}", k.name), k)))
}

pub(crate) fn section(name: &str) -> Option<&'static [Key]> {
    SECTIONS.iter().find(|(section, _)| *section == name).map(|(_, keys)| *keys)
}

pub(crate) fn named(keys: &'static [Key], name: &str) -> Option<&'static Key> {
    keys.iter().find(|key| key.name == name)
}

/// The setting with this whole name.
pub(crate) fn find(dotted: &str) -> Option<&'static Key> {
    let (name, key) = dotted.split_once('.')?;
    named(section(name)?, key)
}

/// What is wrong with `value` as the value of the setting `at`; nothing of it is shown if `hidden`.
pub(crate) fn check(key: &Key, at: &str, value: &Value, hidden: bool) -> Vec<Problem> {
    let mut problems = Problems::default();
    kind::check(key, at, value, hidden, &mut problems);
    problems.0
}

/// Checks a section that is a value already. Secrets are hidden in it and not looked at.
pub(crate) fn check_section(
    section: &str,
    keys: &'static [Key],
    config: &impl Serialize,
    problems: &mut Problems,
) {
    let Ok(values) = serde_json::to_value(config) else {
        return problems.wrong(section, "a value that is no JSON", "a table of settings");
    };
    for key in keys.iter().filter(|key| !key.secret) {
        match values.get(key.name) {
            None | Some(Value::Null) if key.optional => {}
            value => {
                let value = value.unwrap_or(&Value::Null);
                kind::check(key, &format!("{section}.{}", key.name), value, false, problems);
            }
        }
    }
}

/// The setting that is nearest to one that does not exist, as `spell` writes it.
pub(crate) fn nearest_setting(dotted: &str, spell: impl Fn(&str) -> String) -> Option<String> {
    nearest(dotted, all().map(|(name, _)| name)).map(|name| spell(&name))
}

/// The name that `wrong` was most likely meant to be, if any is near.
pub(crate) fn nearest(wrong: &str, names: impl Iterator<Item = String>) -> Option<String> {
    const NEAR: f64 = 0.6;
    names
        .map(|name| (likeness(wrong, &name), name))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, name)| name)
}

fn likeness(wrong: &str, name: &str) -> f64 {
    let whole = strsim::normalized_damerau_levenshtein(wrong, name);
    // In the right section, a name that begins alike (`user`, `username`) is near too.
    match (wrong.split_once('.'), name.split_once('.')) {
        (Some((section, key)), Some((other, other_key))) if section == other => {
            let alike = if other_key.starts_with(key) && key.len() > 2 { 0.9 } else { 0.0 };
            strsim::normalized_damerau_levenshtein(key, other_key).max(alike)
        }
        _ => whole,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::Settings;

    #[test]
    fn the_schema_has_the_fields_of_the_sections() {
        let defaults = serde_json::to_value(Settings::default()).unwrap();
        for (section, values) in defaults.as_object().unwrap() {
            let mut known: Vec<&str> =
                super::section(section).unwrap().iter().map(|key| key.name).collect();
            let mut fields: Vec<&str> =
                values.as_object().unwrap().keys().map(String::as_str).collect();
            known.sort_unstable();
            fields.sort_unstable();
            assert_eq!(known, fields, "{section}");
        }
        assert_eq!(defaults.as_object().unwrap().len(), SECTIONS.len());
    }

    #[test]
    fn what_is_unset_by_default_is_optional_and_nothing_else() {
        let defaults = serde_json::to_value(Settings::default()).unwrap();
        for (whole, key) in all() {
            let (section, name) = whole.split_once('.').unwrap();
            assert_eq!(defaults[section][name] == Value::Null, key.optional, "{whole}");
        }
    }

    #[test]
    fn limits_fit_the_fields() {
        for (whole, key) in all() {
            let Kind::Whole { min, max } = key.kind else { continue };
            for number in [min, max] {
                let (section, name) = whole.split_once('.').unwrap();
                let mut settings = serde_json::to_value(Settings::default()).unwrap();
                settings[section][name] = number.into();
                let read = serde_json::from_value::<Settings>(settings);
                assert!(read.is_ok(), "{whole} = {number}: {read:?}");
            }
        }
    }
}
