//! The values of all layers, the later ones over the earlier ones.

use figment::providers::Serialized;
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};
use serde_json::Value;

use crate::origin::Origin;
use crate::problem::{Fault, Problems};
use crate::schema;
use crate::secret::REDACTED;
use crate::sections::{amqp, database};
use crate::settings::Settings;
use crate::uri::{UrlError, UrlParts};

/// One setting as one layer has it. A provider of its own, so that figment's record of where a value
/// came from is of this one setting.
pub(crate) struct Assignment {
    /// Whole name of a setting that exists.
    pub(crate) key: String,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

impl Provider for Assignment {
    fn metadata(&self) -> Metadata {
        self.origin.metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::default(&self.key, &self.value).data()
    }
}

/// What one layer sets.
#[derive(Default)]
pub(crate) struct Layer {
    /// By older names: under everything that newer names set.
    pub(crate) older: Vec<Assignment>,
    pub(crate) newer: Vec<Assignment>,
}

/// The built-in defaults.
pub(crate) fn defaults() -> Figment {
    let settings = Settings::default();
    // Serialized, secrets are hidden: the one that has a default needs its text.
    let password = Serialized::default("amqp.password", settings.amqp.password.expose().to_owned());
    Figment::from(Serialized::defaults(settings)).merge(password)
}

impl Layer {
    /// This layer over those `under` it. Values that are not of their kind are problems and left
    /// out.
    pub(crate) fn over(self, under: Figment, problems: &mut Problems) -> Figment {
        let mut assignments = with_parts(self.older, problems);
        assignments.extend(with_parts(self.newer, problems));
        assignments.retain(|assignment| assignment.check(problems));
        assignments.into_iter().fold(under, Figment::merge)
    }
}

/// The assignments and the parts of the URLs among them, in the order in which they count: what a URL
/// states more than what stands beside it, and that more than what the URL only implies.
fn with_parts(assignments: Vec<Assignment>, problems: &mut Problems) -> Vec<Assignment> {
    let (mut implied, mut plain, mut stated) = (Vec::new(), Vec::new(), Vec::new());
    for assignment in assignments {
        match assignment.taken_apart() {
            Some(Ok(parts)) => {
                implied.extend(assignment.parts(parts.implied));
                stated.extend(assignment.parts(parts.stated));
                plain.push(assignment);
            }
            Some(Err(error)) => assignment.refuse_url(&error, problems),
            None => plain.push(assignment),
        }
    }
    implied.into_iter().chain(plain).chain(stated).collect()
}

impl Assignment {
    /// The parts of the URL, if the setting is one.
    fn taken_apart(&self) -> Option<Result<UrlParts, UrlError>> {
        let text = self.value.as_str()?;
        match self.key.as_str() {
            "amqp.url" => Some(amqp::parts(text)),
            "database.url" => Some(database::parts(text)),
            _ => None,
        }
    }

    /// Settings of the same section that come from the same place.
    fn parts(&self, parts: Vec<(&'static str, Value)>) -> impl Iterator<Item = Self> {
        let section = self.key.split('.').next().unwrap_or_default();
        parts.into_iter().map(move |(name, value)| Self {
            key: format!("{section}.{name}"),
            value,
            origin: self.origin.clone(),
        })
    }

    fn refuse_url(&self, error: &UrlError, problems: &mut Problems) {
        let found = format!("{REDACTED} ({})", error.reason);
        let allowed = schema::find(&self.key).map(|key| key.kind.allowed()).unwrap_or_default();
        problems.add(&self.origin, &self.key, Fault::Wrong { found, allowed });
    }

    /// Whether the value is of the setting's kind; adds what is wrong with it.
    fn check(&self, problems: &mut Problems) -> bool {
        let found = schema::find(&self.key).map(|key| schema::check(key, &self.key, &self.value));
        let found = found.unwrap_or_default();
        for problem in &found {
            problems.add(&self.origin, &problem.key, problem.fault.clone());
        }
        found.is_empty()
    }
}
