//! Where a value came from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use figment::{Figment, Metadata, Source};

use crate::{environment, schema};

/// Where a value came from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Origin {
    /// Built in.
    #[default]
    Default,
    /// The configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The key as the file has it: another than the setting's own if that is a URL which the
        /// setting is a part of, or an older name.
        key: String,
    },
    /// A variable of the environment.
    Env {
        /// Its name.
        variable: String,
    },
    /// A file that a `…_FILE` variable of the environment names.
    SecretFile {
        /// The variable's name.
        variable: String,
        /// The file.
        path: PathBuf,
    },
}

impl Origin {
    /// As figment keeps it beside a value: the name that the setting has there, and the place.
    pub(crate) fn metadata(&self) -> Metadata {
        match self {
            Self::Default => Metadata::default(),
            Self::File { path, key } => Metadata::from(key.clone(), path.as_path()),
            Self::Env { variable } => Metadata::from(variable.clone(), "environment"),
            Self::SecretFile { variable, path } => Metadata::from(variable.clone(), path.as_path()),
        }
    }

    fn recorded(metadata: &Metadata) -> Self {
        let name = metadata.name.to_string();
        match metadata.source.clone() {
            // No key of a file is named as a variable is.
            Some(Source::File(path)) if environment::names_a_file(&name) => {
                Self::SecretFile { variable: name, path }
            }
            Some(Source::File(path)) => Self::File { path, key: name },
            Some(Source::Custom(_)) => Self::Env { variable: name },
            _ => Self::Default,
        }
    }

    /// In words, for a setting `key`; the key in the file is named only where it is another one.
    pub fn describe(&self, key: &str) -> String {
        match self {
            Self::Default => "default".to_owned(),
            Self::File { path, key: written } if key.starts_with(written) => {
                path.display().to_string()
            }
            Self::File { path, key: written } => format!("{} ({written})", path.display()),
            Self::Env { variable } => variable.clone(),
            Self::SecretFile { variable, path } => format!("{variable} ({})", path.display()),
        }
    }
}

/// Where each setting came from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origins(pub(crate) BTreeMap<String, Origin>);

impl Origins {
    pub(crate) fn of_all(values: &Figment) -> Self {
        let origin = |key: &str| values.find_metadata(key).map(Origin::recorded);
        Self(schema::all().filter_map(|(key, _)| origin(&key).map(|from| (key, from))).collect())
    }

    /// Where `key` came from, such as `amqp.host`, or `gateway.users[0].username` which came from
    /// where `gateway.users` did.
    pub fn of(&self, key: &str) -> &Origin {
        const DEFAULT: &Origin = &Origin::Default;
        let whole = key.split_once('[').map_or(key, |(whole, _)| whole);
        self.0.get(whole).unwrap_or(DEFAULT)
    }
}
