//! `.run/env`: the addresses of the system that `scripts/up` started.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const FILE: &str = ".run/env";

/// The file of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunEnv {
    pub(crate) path: PathBuf,
    values: BTreeMap<String, String>,
}

impl RunEnv {
    /// The nearest one: in `dir` or above it, else above `program`.
    pub(crate) fn find(dir: &Path, program: Option<&Path>) -> Result<Option<Self>, Unreadable> {
        let places = dir.ancestors().chain(program.into_iter().flat_map(Path::ancestors).skip(1));
        Self::first(places)
    }

    /// The first one in these directories.
    fn first<'a>(mut places: impl Iterator<Item = &'a Path>) -> Result<Option<Self>, Unreadable> {
        let file = |place: &Path| Some(place.join(FILE)).filter(|path| path.is_file());
        let Some(path) = places.find_map(file) else { return Ok(None) };
        match read_own(&path) {
            Ok(text) => Ok(Some(Self::read(path, &text))),
            Err(source) => Err(Unreadable { path, source }),
        }
    }

    /// What a file says.
    pub(crate) fn read(path: PathBuf, text: &str) -> Self {
        Self { path, values: parse(text) }
    }

    /// An address, by its name in the file.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The services that it names, `WORKER_2_OPS_URL` as `worker-2`, each with its address.
    pub(crate) fn services(&self) -> Vec<(String, &str)> {
        let service = |name: &String| {
            let service = name.strip_suffix("_OPS_URL")?.to_ascii_lowercase().replace('_', "-");
            Some((service, self.get(name)?))
        };
        let mut services: Vec<_> = self.values.keys().filter_map(service).collect();
        services.sort();
        services
    }
}

/// A file of addresses that is there but does not help.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

/// Somebody else's file could lead to a server of theirs.
fn read_own(path: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    if std::fs::metadata(path)?.uid() == rustix::process::geteuid().as_raw() {
        Ok(text)
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"))
    }
}

/// Lines `NAME='value'` as a shell would read them; what is none is passed over.
fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(assignment).collect()
}

fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, value) = line.split_once('=')?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (is_name && !name.is_empty()).then(|| (name.to_owned(), unquoted(value).to_owned()))
}

fn unquoted(value: &str) -> &str {
    let inside = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
    inside('\'').or_else(|| inside('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_a_shell_would() {
        let check = |line: &str, want: Option<(&str, &str)>| {
            let want = want.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(assignment(line), want, "{line}");
        };
        check("AMQP_URL='amqp://u:p@h/%2f'", Some(("AMQP_URL", "amqp://u:p@h/%2f")));
        check("export A=\"b\"", Some(("A", "b")));
        check("  A=b=c ", Some(("A", "b=c")));
        check("A='", Some(("A", "'")));
        check("# A=b", None);
        check("A B=c", None);
        check("=c", None);
        check("", None);
    }

    #[test]
    fn services_are_named_as_scripts_up_names_them() {
        let text = "WORKER_2_OPS_URL='http://h:3'\nAMQP_URL='amqp://h'\nMQTT_URL='mqtt://h:1'\n\
                    WORKER_OPS_URL='http://h:2'\nWORKER_3_OPS_URL=''\nGATEWAY_OPS_URL='http://h:1'\n";
        let found = RunEnv::read(PathBuf::from("/x/.run/env"), text);
        let want =
            [("gateway", "http://h:1"), ("worker", "http://h:2"), ("worker-2", "http://h:3")];
        assert_eq!(found.services(), want.map(|(name, url)| (name.to_owned(), url)));
    }

    #[test]
    fn the_nearest_is_found() {
        let root = std::env::temp_dir().join(format!("platziverse-{}", std::process::id()));
        let (checkout, other) = (root.join("checkout"), root.join("other"));
        let deep = checkout.join("target/release");
        for (dir, url) in [(&checkout, "amqp://checkout"), (&other, "amqp://other")] {
            std::fs::create_dir_all(dir.join(".run")).unwrap();
            std::fs::write(dir.join(FILE), format!("AMQP_URL='{url}'\nEMPTY=''\n")).unwrap();
        }
        std::fs::create_dir_all(&deep).unwrap();
        // Not above the root: the tests may run in a checkout whose system is up.
        let check = |places: &[&Path], want: Option<&str>| {
            let above = |place: &&Path| place.starts_with(&root);
            let places = places.iter().flat_map(|place| place.ancestors()).filter(above);
            let found = RunEnv::first(places).unwrap();
            let url = found.as_ref().and_then(|found| found.get("AMQP_URL"));
            assert_eq!(url, want);
            assert_eq!(found.and_then(|found| found.get("EMPTY").map(str::to_owned)), None);
        };
        check(&[&other, &deep], Some("amqp://other"));
        check(&[&deep], Some("amqp://checkout"));
        check(&[&root, &deep], Some("amqp://checkout"));
        check(&[&root], None);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
