//! The values of all layers, the later ones over the earlier ones.

use figment::providers::Serialized;
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};
use serde_json::Value;

use crate::origin::{Origin, Origins};
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

/// A setting and whether its value is hidden in errors.
struct Checked {
    assignment: Assignment,
    hidden: bool,
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
        assignments.retain(|checked| checked.assignment.check(checked.hidden, problems));
        assignments.into_iter().fold(under, |values, checked| values.merge(checked.assignment))
    }
}

/// The assignments and the parts of the URLs among them, in the order in which they count: what a URL
/// states more than what stands beside it, and that more than what the URL only implies.
fn with_parts(assignments: Vec<Assignment>, problems: &mut Problems) -> Vec<Checked> {
    let (mut implied, mut plain, mut stated) = (Vec::new(), Vec::new(), Vec::new());
    for assignment in assignments {
        match assignment.taken_apart() {
            Some(Ok(parts)) => {
                implied.extend(assignment.parts(parts.implied));
                stated.extend(assignment.parts(parts.stated));
                plain.push(Checked { assignment, hidden: true });
            }
            Some(Err(error)) => assignment.refuse_url(&error, problems),
            None => {
                // A file may be another than the one that was meant.
                let hidden = matches!(assignment.origin, Origin::SecretFile { .. });
                plain.push(Checked { assignment, hidden });
            }
        }
    }
    implied.into_iter().chain(plain).chain(stated).collect()
}

/// The values with the port that `amqp.tls` implies where nothing states one.
pub(crate) fn with_port_of_tls(values: Figment) -> Figment {
    let origins = Origins::of_all(&values);
    let is_tls = values.extract_inner("amqp.tls").unwrap_or(false);
    if !is_tls || *origins.of("amqp.port") != Origin::Default {
        return values;
    }
    let origin = origins.of("amqp.tls").clone();
    values.merge(Assignment { key: "amqp.port".to_owned(), value: amqp::PORT_TLS.into(), origin })
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
    fn parts(&self, parts: Vec<(&'static str, Value)>) -> impl Iterator<Item = Checked> {
        let section = self.key.split('.').next().unwrap_or_default();
        parts.into_iter().map(move |(name, value)| {
            let (key, origin) = (format!("{section}.{name}"), self.origin.clone());
            // Where a URL is not encoded as it should be, a part may be one of the password's.
            Checked { assignment: Self { key, value, origin }, hidden: true }
        })
    }

    fn refuse_url(&self, error: &UrlError, problems: &mut Problems) {
        let found = format!("{REDACTED} ({})", error.reason);
        let allowed = schema::find(&self.key).map(|key| key.kind.allowed()).unwrap_or_default();
        problems.add(&self.origin, &self.key, Fault::Wrong { found, allowed });
    }

    /// Whether the value is of the setting's kind; adds what is wrong with it.
    fn check(&self, hidden: bool, problems: &mut Problems) -> bool {
        let key = schema::find(&self.key);
        let found = key.map(|key| schema::check(key, &self.key, &self.value, hidden));
        let found = found.unwrap_or_default();
        for problem in &found {
            problems.add(&self.origin, &problem.key, problem.fault.clone());
        }
        found.is_empty()
    }
}
