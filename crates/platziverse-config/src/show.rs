//! What is in force and where it came from, for people and programs.

use serde_json::Value;

use crate::origin::Origin;
use crate::schema::{self, Key};
use crate::secret::REDACTED;
use crate::settings::Loaded;

/// One setting in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Its whole name, `amqp.host`.
    pub key: String,
    /// Its value; `[redacted]` if it is secret, null if it is not set.
    pub value: Value,
    /// The value as text, as the file would have it; `(not set)` if it is not.
    pub text: String,
    /// Where it came from; [`Origin::describe`] has it in words.
    pub origin: Origin,
}

impl Loaded {
    /// Every setting in force, section by section. Without secrets.
    pub fn show(&self) -> Vec<Row> {
        let values = serde_json::to_value(&self.settings).unwrap_or_default();
        schema::SECTIONS
            .iter()
            .flat_map(|(section, keys)| keys.iter().map(move |key| (*section, key)))
            .map(|(section, key)| self.row(section, key, &values[section][key.name]))
            .collect()
    }

    fn row(&self, section: &str, key: &Key, value: &Value) -> Row {
        let text = match value {
            Value::Null => "(not set)".to_owned(),
            Value::String(text) if text == REDACTED && key.secret => text.clone(),
            value => value.to_string(),
        };
        let key = format!("{section}.{}", key.name);
        let origin = self.origins.of(&key).clone();
        Row { key, value: value.clone(), text, origin }
    }
}
