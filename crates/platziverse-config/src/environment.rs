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

/// Ends the name of a variable whose value is the path of a file that holds the setting's.
const OF_FILE: &str = "_FILE";

/// Names the file of settings; no setting itself.
pub(crate) const CONFIG: &str = "PLATZIVERSE_CONFIG";

/// Whether a variable must be a setting.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Whether a variable has an older name, or names the file of a secret that has one.
pub(crate) fn is_older(name: &str) -> bool {
    older::find(name).is_some() || older_secret(name).is_some()
}

/// Whether a variable may name a file that holds a value.
pub(crate) fn names_a_file(name: &str) -> bool {
    is_ours(name) || older_secret(name).is_some()
}

fn older_secret(name: &str) -> Option<(&'static str, &'static Key)> {
    let older = older::find(name.strip_suffix(OF_FILE)?)?;
    schema::find(older.key).filter(|key| key.secret).map(|key| (older.key, key))
}

/// Whether Kubernetes makes such a variable for a Service whose name begins with `platziverse`:
/// `…_SERVICE_HOST`, `…_SERVICE_PORT[_NAME]`, `…_PORT=tcp://…`, `…_PORT_1883_TCP[_ADDR]`. None of
/// our settings is spelled so: they have `__` between section and name.
fn is_injected(rest: &str, text: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let rest = format!("_{rest}");
    let is_url =
        || PROTOCOLS.iter().any(|p| text.starts_with(&format!("{}://", p.to_ascii_lowercase())));
    let is_numbered = || {
        rest.split("_PORT_").skip(1).any(|end| {
            let (number, end) = end.split_once('_').unwrap_or_default();
            number.parse::<u16>().is_ok() && PROTOCOLS.iter().any(|p| end.starts_with(p))
        })
    };
    !rest[1..].contains("__")
        && (rest.ends_with("_SERVICE_HOST")
            || rest.ends_with("_SERVICE_PORT")
            || rest.contains("_SERVICE_PORT_")
            || (rest.ends_with("_PORT") && is_url())
            || is_numbered())
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
        } else if let Some((key, secret)) = older_secret(name).filter(|_| !text.is_empty()) {
            if let Some(assignment) = reader.file(name, key, secret, &layers.dir.join(text)) {
                reader.assign_older(name, assignment, layers);
            }
        } else if let Some(rest) = name.strip_prefix(PREFIX)
            && name != CONFIG
            && !is_injected(rest, text)
        {
            let dotted = rest.to_ascii_lowercase().replace("__", ".");
            reader.variable(name, &dotted, text, &layers.dir);
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
            let value = key.kind.read(text);
            if !(key.optional && text.is_empty()) {
                self.assign(name, Assignment { key: dotted.to_owned(), value, origin });
            }
            return;
        }
        let file = dotted.strip_suffix("_file").and_then(|d| Some((d, schema::find(d)?)));
        match file {
            Some(_) if text.is_empty() => {}
            Some((dotted, key)) => {
                if let Some(assignment) = self.file(name, dotted, key, &dir.join(text)) {
                    self.assign(name, assignment);
                }
            }
            None => {
                let origin = Origin::Env { variable: name.to_owned() };
                self.problems.unknown(&origin, "", schema::nearest_setting(dotted, variable));
            }
        }
    }

    /// What a file that a variable names sets; nothing if an optional setting's is empty.
    fn file(&mut self, name: &str, dotted: &str, key: &Key, path: &Path) -> Option<Assignment> {
        let origin = Origin::SecretFile { variable: name.to_owned(), path: path.to_owned() };
        match file::text(path) {
            Ok(text) => {
                let line = text.strip_suffix('\n').unwrap_or(&text);
                let line = line.strip_suffix('\r').unwrap_or(line);
                let value = key.kind.read(line);
                let is_unset = key.optional && line.is_empty();
                (!is_unset).then(|| Assignment { key: dotted.to_owned(), value, origin })
            }
            Err(error) => {
                let reason = format!("cannot be read: {error}");
                self.problems.add(&origin, dotted, Fault::File { reason });
                None
            }
        }
    }

    /// A variable with an older name that names a file contradicts the one that has the value.
    fn assign_older(&mut self, name: &str, assignment: Assignment, layers: &Layers) {
        let plain = name.strip_suffix(OF_FILE).unwrap_or(name);
        if layers.env.iter().any(|(other, text)| other == plain && !text.is_empty()) {
            return self.contradicts(plain, &assignment);
        }
        self.layer.older.push(assignment);
    }

    fn contradicts(&mut self, other: &str, assignment: &Assignment) {
        let (found, allowed) = (format!("{other} too"), "one of the two".to_owned());
        self.problems.add(&assignment.origin, &assignment.key, Fault::Wrong { found, allowed });
    }

    fn assign(&mut self, name: &str, assignment: Assignment) {
        if let Some(other) = self.set.insert(assignment.key.clone(), name.to_owned()) {
            return self.contradicts(&other, &assignment);
        }
        self.layer.newer.push(assignment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_injects_is_told_from_settings() {
        let check = |rest: &str, text: &str, want: bool| {
            assert_eq!(is_injected(rest, text), want, "{rest}={text}");
        };
        check("SERVICE_HOST", "10.0.0.1", true);
        check("GATEWAY_SERVICE_HOST", "10.0.0.1", true);
        check("GATEWAY_SERVICE_PORT", "1883", true);
        check("GATEWAY_SERVICE_PORT_MQTT", "1883", true);
        check("PORT", "tcp://10.0.0.1:1883", true);
        check("GATEWAY_PORT", "tcp://10.0.0.1:1883", true);
        check("GATEWAY_PORT_1883_TCP", "tcp://10.0.0.1:1883", true);
        check("GATEWAY_PORT_1883_TCP_ADDR", "10.0.0.1", true);
        check("GATEWAY_PORT_53_UDP_PROTO", "udp", true);
        check("AMQP_PORT", "5672", false);
        check("GATEWAY_PORTS", "tcp://10.0.0.1:1883", false);
        check("GATEWAY_PORT_MQTT_TCP", "1", false);
        check("AMQP__PORT", "tcp://10.0.0.1:1883", false);
        check("AMQP__SERVICE_HOST", "h", false);
        check("GATEWAY_LISTEN", "x", false);
    }
}
