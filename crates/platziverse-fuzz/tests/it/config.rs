//! Settings: whatever is written, it is read or refused in words, and no secret is in the words.
//! The ending of an input's name says whether it is a file (`toml`, `json`) or an environment
//! (`env`, one variable a line).

use std::fs;
use std::path::PathBuf;

use figment::providers::{Format as _, Toml};
use platziverse_config::{ConfigErrors, Layers, Loaded, Settings};
use platziverse_fuzz::{Fate, Input, Target};
use proptest::prop_assert;
use proptest::test_runner::{TestCaseError, TestCaseResult};
use serde_json::Value;

/// Larger ones would only be fewer.
const BYTES_MAX: usize = 8 << 10;

const WORDS: &[&str] = &[
    "amqp",
    "database",
    "gateway",
    "ingest",
    "tasks",
    "ops",
    "log",
    "[amqp]\n",
    "[database]\n",
    "url",
    "host",
    "port",
    "password",
    "password_hash",
    "users",
    "listen",
    "level",
    "routes",
    "filter",
    "queue",
    "amqp://",
    "amqps://",
    "postgres://",
    "u:p@",
    "@",
    ":",
    "/",
    "?",
    "%",
    "%00",
    "%ff",
    "[::1]",
    "0.0.0.0:1",
    "10s",
    "1h 30m",
    "99999999999999999999s",
    "true",
    "null",
    "=",
    "\"",
    "'''",
    "\n",
    "{}",
    "[]",
    "[[",
    "\\u0000",
    "platziverse.events",
    "info,a=debug",
    "info[{x=1}]=trace",
    "$argon2id$v=19$m=4096,t=3,p=1$",
    "hid/den-9!",
    "PLATZIVERSE_AMQP__PASSWORD=",
    "PLATZIVERSE_AMQP__URL=",
    "PLATZIVERSE_",
    "__",
    "_FILE",
    "DB_PASS=",
    "RABBITMQ_HOSTNAME=",
];

/// Settings that are not shown, as their variables are called.
const SECRET_VARIABLES: [&str; 6] = [
    "platziverse_amqp__password",
    "platziverse_amqp__url",
    "platziverse_database__password",
    "platziverse_database__url",
    "platziverse_gateway__users",
    "db_pass",
];

/// What is shorter may stand anywhere by chance.
const SECRET_BYTES_MIN: usize = 6;
/// Secrets of the corpus have one of these, and the words of errors do not.
const SECRET_MARKS: [char; 4] = ['!', '$', '%', '-'];

/// What is secret in the files of the corpus, each once in a file at most.
const CORPUS_SECRETS: [&str; 6] =
    ["hid/den-1!", "hid/den-2!", "hid/den-3!", "hid/den-4!", "hid%2Fden-1!", "hid%2Fden-2!"];

/// No environment has many more.
const VARIABLES_MAX: usize = 100;

#[test]
fn config() {
    let folder = Folder::new();
    Target::new("config", WORDS, BYTES_MAX).run(|input| check(&folder.0, input));
}

/// A folder of this process's own for the files of settings. It goes when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("platziverse-fuzz-config-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder among temporary files");
        fs::write(path.join("password.txt"), "hid/den-file!\n").expect("a file in it");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays behind is small.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn check(folder: &std::path::Path, input: &Input) -> Result<Fate, TestCaseError> {
    let text = input.text();
    let mut layers = Layers { dir: folder.to_owned(), ..Layers::default() };
    let secrets = if input.name.ends_with(".env") {
        layers.env = variables(&text);
        secrets_of_variables(&layers.env)
    } else {
        let ending = input.name.rsplit('.').next().unwrap_or_default();
        let path = folder.join(format!("input.{ending}"));
        fs::write(&path, &input.bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
        layers.file = Some(path);
        secrets_of_file(ending, &text)
    };
    let loaded = Settings::load(&layers);
    let shown = match &loaded {
        Ok(loaded) => everything_shown(loaded),
        Err(errors) => located(errors, &layers)?,
    };
    hidden(&secrets, &text, &format!("{shown}\n{layers:?}"))?;
    Ok(Fate::of(loaded.is_ok()))
}

/// All that a person may see of settings.
fn everything_shown(loaded: &Loaded) -> String {
    let rows: Vec<String> = loaded.show().iter().map(|row| format!("{row:?}\n")).collect();
    let settings = &loaded.settings;
    let addresses = [settings.amqp.address(), settings.database.address()];
    format!("{loaded:?}\n{rows:?}\n{addresses:?}")
}

/// All that a person may see of errors; each of them says where it is.
fn located(errors: &ConfigErrors, layers: &Layers) -> Result<String, TestCaseError> {
    prop_assert!(!errors.problems().is_empty());
    for problem in errors.problems() {
        let text = problem.to_string();
        let file = layers.file.as_ref().is_some_and(|path| text.contains(&*path.to_string_lossy()));
        let variable = layers.env.iter().any(|(name, _)| text.contains(name.as_str()));
        let named = !problem.key.is_empty() && text.contains(&problem.key);
        prop_assert!(file || variable || named, "nothing says where it is: {}", text);
        prop_assert!(!text.contains('\n'), "an error of several lines: {}", text);
    }
    Ok(format!("{errors}\n{errors:?}"))
}

/// No secret is shown. One that stands in the text once more may be shown for that.
fn hidden(secrets: &[String], text: &str, shown: &str) -> TestCaseResult {
    let is_telling =
        |secret: &&String| secret.len() >= SECRET_BYTES_MIN && secret.contains(SECRET_MARKS);
    for secret in secrets.iter().filter(is_telling) {
        let everywhere = text.matches(secret.as_str()).count();
        let as_secret = secrets.iter().map(|other| other.matches(secret.as_str()).count());
        if everywhere <= as_secret.sum() {
            prop_assert!(!shown.contains(secret.as_str()), "{} is shown: {}", secret, shown);
        }
    }
    Ok(())
}

fn variables(text: &str) -> Vec<(String, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once('=')).take(VARIABLES_MAX);
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn secrets_of_variables(variables: &[(String, String)]) -> Vec<String> {
    let is_secret = |name: &str| SECRET_VARIABLES.contains(&name.to_ascii_lowercase().as_str());
    let mut secrets = vec!["hid/den-file!".to_owned()];
    for (_, value) in variables.iter().filter(|(name, _)| is_secret(name)) {
        match serde_json::from_str::<Value>(value) {
            Ok(Value::Array(users)) => {
                users.iter().for_each(|user| add(user, "password_hash", &mut secrets))
            }
            _ => secrets.push(value.clone()),
        }
    }
    secrets
}

fn secrets_of_file(ending: &str, text: &str) -> Vec<String> {
    let parsed = match ending {
        "toml" => Toml::from_str::<Value>(text).ok(),
        _ => serde_json::from_str(text).ok(),
    };
    // What cannot be read may have a secret anywhere; the corpus has these.
    let Some(tree) = parsed else { return CORPUS_SECRETS.map(str::to_owned).to_vec() };
    let mut secrets = Vec::new();
    for section in ["amqp", "database"] {
        add(&tree[section], "password", &mut secrets);
        add(&tree[section], "url", &mut secrets);
    }
    let users = tree["gateway"]["users"].as_array();
    users.into_iter().flatten().for_each(|user| add(user, "password_hash", &mut secrets));
    secrets
}

/// Adds the text of a secret setting, if it has one.
fn add(table: &Value, key: &str, secrets: &mut Vec<String>) {
    secrets.extend(table[key].as_str().map(str::to_owned));
}
