//! The layer of the file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use figment::providers::{Format as _, Toml};
use serde_json::{Map, Value};

use crate::kind::found;
use crate::older;
use crate::origin::Origin;
use crate::problem::{Fault, Problems, key_shown};
use crate::schema::{self, Key};
use crate::values::{Assignment, Layer};

/// Bytes of a file of settings, or of one that holds a value.
const SIZE_MAX: u64 = 1_048_576;

/// The whole text of a file of a sensible size.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SIZE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(io::Error::other(format!("it is larger than {SIZE_MAX} bytes")));
    }
    Ok(text)
}

/// What the file sets. A file that cannot be used is a problem and sets nothing.
pub(crate) fn read(path: &Path, problems: &mut Problems) -> Layer {
    let mut reader = Reader { path, layer: Layer::default(), problems };
    match parse(path) {
        Ok(top) => reader.top(top),
        Err(reason) => reader.problems.add(&reader.origin(""), "", Fault::File { reason }),
    }
    reader.layer
}

fn parse(path: &Path) -> Result<Map<String, Value>, String> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let parser = match ending.as_str() {
        "toml" => toml_value,
        "json" => json_value,
        _ => return Err("is neither TOML nor JSON: its name must end in .toml or .json".to_owned()),
    };
    let text = text(path).map_err(|error| format!("cannot be read: {error}"))?;
    match parser(&text)? {
        Value::Object(top) => Ok(top),
        _ => Err("must hold one JSON object".to_owned()),
    }
}

// Only the message: the whole error quotes the line, which may hold a secret.
fn toml_value(text: &str) -> Result<Value, String> {
    Toml::from_str(text).map_err(|error| {
        let before = text.get(..error.span().map_or(0, |span| span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let message = without_odd_keys(&error.message().replace('\n', ", "));
        format!("is no TOML: line {line}, column {column}: {message}")
    })
}

/// Between backticks, the parser quotes keys.
fn without_odd_keys(message: &str) -> String {
    let parts = message.split('`').enumerate();
    let parts = parts.map(|(at, part)| if at % 2 == 1 { key_shown(part) } else { part });
    parts.collect::<Vec<_>>().join("`")
}

fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))
}

struct Reader<'a> {
    path: &'a Path,
    layer: Layer,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn origin(&self, key: &str) -> Origin {
        Origin::File { path: self.path.to_owned(), key: key_shown(key).to_owned() }
    }

    fn top(&mut self, top: Map<String, Value>) {
        for (name, value) in top {
            match (schema::section(&name), older::find(&name).filter(|older| older.in_file)) {
                (Some(keys), _) => self.section(&name, keys, value),
                (None, Some(older)) => {
                    let value = value.as_str().map_or(older.whole(&value), |text| older.read(text));
                    for (key, value) in value {
                        let origin = self.origin(&name);
                        self.layer.older.push(Assignment { key: key.to_owned(), value, origin });
                    }
                }
                (None, None) => {
                    self.problems.unknown(&self.origin(&name), &name, nearest_on_top(&name));
                }
            }
        }
    }

    fn section(&mut self, section: &str, keys: &'static [Key], value: Value) {
        let Value::Object(values) = value else {
            let fault =
                Fault::Wrong { found: found(&value, true), allowed: "a table of settings".into() };
            return self.problems.add(&self.origin(section), section, fault);
        };
        for (name, value) in values {
            let key = format!("{section}.{name}");
            let origin = self.origin(&key);
            match schema::named(keys, &name) {
                Some(known) if known.optional && value.is_null() => {}
                Some(_) => self.layer.newer.push(Assignment { key, value, origin }),
                None => {
                    let nearest = schema::nearest_setting(&key, str::to_owned);
                    self.problems.unknown(&origin, &key, nearest);
                }
            }
        }
    }
}

/// A section, a setting that lacks its section, or what an older name has become.
fn nearest_on_top(name: &str) -> Option<String> {
    if let Some(older) = older::find(name) {
        return Some(older.key.to_owned());
    }
    let sections = schema::SECTIONS.iter().map(|(section, _)| (*section).to_owned());
    schema::nearest(name, sections.chain(older::in_file()))
        .or_else(|| schema::all().find(|(_, key)| key.name == name).map(|(whole, _)| whole))
}
