//! The layer of the environment.

use std::collections::BTreeMap;
use std::path::Path;

use crate::layers::Layers;
use crate::origin::Origin;
use crate::problem::{Fault, Problems};
use crate::schema::{self, Key};
use crate::values::{Assignment, Layer};
use crate::{file, older};

const PREFIX: &str = "PLATZIVERSE_";

/// Names the file of settings; no setting itself.
pub(crate) const CONFIG: &str = "PLATZIVERSE_CONFIG";

/// Whether a variable must be a setting.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What the environment sets.
pub(crate) fn read(layers: &Layers, problems: &mut Problems) -> Layer {
    let mut reader = Reader { layer: Layer::default(), set: BTreeMap::new(), problems };
    for (name, text) in &layers.env {
        if let Some(older) = older::find(name).filter(|_| !text.is_empty()) {
            for (key, value) in older.read(text) {
                let origin = Origin::Env { variable: name.clone() };
                reader.layer.older.push(Assignment { key: key.to_owned(), value, origin });
            }
        } else if let Some(rest) = name.strip_prefix(PREFIX).filter(|_| name != CONFIG) {
            reader.variable(name, &rest.to_ascii_lowercase().replace("__", "."), text, &layers.dir);
        }
    }
    reader.layer
}

/// The variable of a setting.
fn variable(dotted: &str) -> String {
    format!("{PREFIX}{}", dotted.replace('.', "__").to_ascii_uppercase())
}

struct Reader<'a> {
    layer: Layer,
    /// The variable that has set a setting.
    set: BTreeMap<String, String>,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn variable(&mut self, name: &str, dotted: &str, text: &str, dir: &Path) {
        if let Some(key) = schema::find(dotted) {
            let origin = Origin::Env { variable: name.to_owned() };
            return self.assign(name, dotted, key, text, origin);
        }
        let of_file = dotted.strip_suffix("_file").and_then(|d| Some((d, schema::find(d)?)));
        match of_file {
            // As an empty variable with an optional setting: not there.
            Some((_, key)) if key.optional && text.is_empty() => {}
            Some((dotted, key)) => self.file(name, dotted, key, &dir.join(text)),
            None => {
                let origin = Origin::Env { variable: name.to_owned() };
                self.problems.add(&origin, "", schema::unknown(dotted, variable));
            }
        }
    }

    fn file(&mut self, name: &str, dotted: &str, key: &'static Key, path: &Path) {
        let origin = Origin::SecretFile { variable: name.to_owned(), path: path.to_owned() };
        match file::text(path) {
            Ok(text) => {
                let line = text.strip_suffix('\n').unwrap_or(&text);
                let line = line.strip_suffix('\r').unwrap_or(line);
                self.assign(name, dotted, key, line, origin);
            }
            Err(error) => {
                let reason = format!("cannot be read: {error}");
                self.problems.add(&origin, dotted, Fault::File { reason });
            }
        }
    }

    fn assign(&mut self, name: &str, dotted: &str, key: &Key, text: &str, origin: Origin) {
        if key.optional && text.is_empty() {
            return;
        }
        if let Some(other) = self.set.insert(dotted.to_owned(), name.to_owned()) {
            let found = format!("{other} too");
            let allowed = "one of the two".to_owned();
            return self.problems.add(&origin, dotted, Fault::Wrong { found, allowed });
        }
        let value = key.kind.read(text);
        self.layer.newer.push(Assignment { key: dotted.to_owned(), value, origin });
    }
}
