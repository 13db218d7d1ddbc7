//! What is wrong with the settings: everything at once.

use std::fmt;

use crate::origin::Origin;

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

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.origin.as_ref().map(|origin| origin.describe(&self.key));
        let named: Vec<&str> = [source.as_deref().unwrap_or(""), &self.key]
            .into_iter()
            .filter(|name| !name.is_empty())
            .collect();
        write!(f, "{}: ", named.join(": "))?;
        match &self.fault {
            Fault::Unknown { nearest: Some(nearest) } => {
                write!(f, "no such setting; did you mean {nearest}?")
            }
            Fault::Unknown { nearest: None } => f.write_str("no such setting"),
            Fault::Wrong { found, allowed } => write!(f, "found {found}; allowed: {allowed}"),
            Fault::File { reason } => f.write_str(reason),
        }
    }
}

/// Wrong settings, as they are found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems(pub(crate) Vec<Problem>);

impl Problems {
    /// Adds a setting whose value is not allowed. `found` must not show a secret.
    pub fn wrong(
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

    /// `Err` if there is any.
    pub fn into_result(self) -> Result<(), ConfigErrors> {
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
