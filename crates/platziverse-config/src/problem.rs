//! What is wrong with the settings: everything at once.

use std::fmt;

use crate::origin::Origin;
use crate::secret::REDACTED;

/// One wrong setting. Never holds a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Where it was read; `None` for settings made by a program.
    pub origin: Option<Origin>,
    /// The setting, such as `amqp.port`; empty if the whole file is meant.
    pub key: String,
    /// What is the matter.
    pub fault: Fault,
}

/// What is the matter with a setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// There is no such setting.
    Unknown {
        /// The one it is most like, spelled as it would be there.
        nearest: Option<String>,
    },
    /// It may not have this value.
    Wrong {
        /// The value, or what it is if it is secret.
        found: String,
        /// In words, what it may be.
        allowed: String,
    },
    /// The file cannot be used.
    File {
        /// Why.
        reason: String,
    },
}

impl Fault {
    /// The same, of a value from there: a secret file's is not shown.
    pub(crate) fn from(self, origin: &Origin) -> Self {
        match (self, origin) {
            (Self::Wrong { allowed, .. }, Origin::SecretFile { .. }) => {
                Self::Wrong { found: REDACTED.to_owned(), allowed }
            }
            (fault, _) => fault,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { nearest: Some(nearest) } => {
                write!(f, "no such setting; did you mean {nearest}?")
            }
            Self::Unknown { nearest: None } => f.write_str("no such setting"),
            Self::Wrong { found, allowed } => write!(f, "found {found}; allowed: {allowed}"),
            Self::File { reason } => f.write_str(reason),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.origin.as_ref().map(|origin| origin.describe(&self.key));
        let named: Vec<&str> = [source.as_deref().unwrap_or(""), &self.key]
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect();
        write!(f, "{}: {}", named.join(": "), self.fault)
    }
}

/// A name that somebody wrote as a setting's, as far as it looks like one: it may be a URL that
/// ended up in the wrong place, with a password in it.
pub(crate) fn key_shown(name: &str) -> &str {
    let is_plain = |c: char| c.is_alphanumeric() || "_-.[]".contains(c);
    if name.chars().all(is_plain) { name } else { REDACTED }
}

/// Wrong settings, as they are found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    /// Adds a setting whose value is not allowed. `found` must not show a secret.
    pub(crate) fn wrong(
        &mut self,
        key: impl Into<String>,
        found: impl fmt::Display,
        allowed: impl Into<String>,
    ) {
        let fault = Fault::Wrong { found: found.to_string(), allowed: allowed.into() };
        self.0.push(Problem { origin: None, key: key.into(), fault });
    }

    pub(crate) fn add(&mut self, origin: &Origin, key: &str, fault: Fault) {
        self.0.push(Problem { origin: Some(origin.clone()), key: key.to_owned(), fault });
    }

    /// A setting that does not exist.
    pub(crate) fn unknown(&mut self, origin: &Origin, key: &str, nearest: Option<String>) {
        self.add(origin, key_shown(key), Fault::Unknown { nearest });
    }

    /// `Err` if there is any.
    pub(crate) fn into_result(self) -> Result<(), ConfigErrors> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigErrors(self.0)) }
    }
}

/// Every wrong setting, in the order of the layers. At least one; shown as one line each.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// Each of them.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("a setting is wrong:")?,
            many => write!(f, "{many} settings are wrong:")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}
