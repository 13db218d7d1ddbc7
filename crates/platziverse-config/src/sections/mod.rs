//! One module for each section of the settings.

pub(crate) mod aggregator;
pub(crate) mod amqp;
pub(crate) mod database;
pub(crate) mod gateway;
pub(crate) mod ingest;
pub(crate) mod log;
pub(crate) mod mom;
pub(crate) mod ops;
pub(crate) mod tasks;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::schema::{self, Key};
use crate::uri::{UrlError, UrlParts};

/// The section that a URL alone describes, everything else by default.
fn from_url<T: DeserializeOwned>(
    section: &str,
    keys: &'static [Key],
    url: &str,
    parts: UrlParts,
) -> Result<T, UrlError> {
    let mut values = Map::new();
    for (name, value) in parts.implied.into_iter().chain(parts.stated) {
        if let Some(key) = schema::named(keys, name) {
            let problems = schema::check(key, &format!("{section}.{name}"), &value);
            if let Some(problem) = problems.first() {
                return Err(UrlError::new(problem.to_string()));
            }
        }
        values.insert(name.to_owned(), value);
    }
    values.insert("url".to_owned(), url.into());
    serde_json::from_value(Value::Object(values))
        .map_err(|_| UrlError::new("it does not describe this section"))
}
