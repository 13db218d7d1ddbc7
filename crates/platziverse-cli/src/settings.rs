//! The settings that a command works with.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::anyhow;
use platziverse_config::{ConfigErrors, Layers, Loaded, Origin, Row, Settings};
use platziverse_service::{Service, chain};
use platziverse_store::StoreError;

use crate::discovery::RunEnv;
use crate::output;

/// What the arguments say for every command.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) config: Option<PathBuf>,
    pub(crate) verbose: bool,
}

/// A server that commands talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    RabbitMq,
    PostgreSql,
}

impl Server {
    const ALL: [Self; 2] = [Self::RabbitMq, Self::PostgreSql];

    const fn section(self) -> &'static str {
        match self {
            Self::RabbitMq => "amqp",
            Self::PostgreSql => "database",
        }
    }

    /// The settings that say where it is and who we are there.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::RabbitMq => &["url", "host", "port", "username", "password", "vhost", "tls"],
            Self::PostgreSql => &["url", "host", "port", "name", "username", "password"],
        }
    }

    /// Its name in `.run/env`.
    const fn address(self) -> &'static str {
        match self {
            Self::RabbitMq => "AMQP_URL",
            Self::PostgreSql => "DATABASE_URL",
        }
    }

    /// The setting that has its whole address.
    fn url(self) -> String {
        format!("{}.url", self.section())
    }

    /// The variable that sets its address.
    const fn variable(self) -> &'static str {
        match self {
            Self::RabbitMq => "PLATZIVERSE_AMQP__URL",
            Self::PostgreSql => "PLATZIVERSE_DATABASE__URL",
        }
    }

    /// Where its address came from if a file or the environment says anything about it.
    fn said(self, loaded: &Loaded) -> Option<(String, Origin)> {
        let keys = self.keys().iter().map(|key| format!("{}.{key}", self.section()));
        keys.map(|key| (key.clone(), loaded.origins.of(&key).clone()))
            .find(|(_, origin)| *origin != Origin::Default)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RabbitMq => "RabbitMQ",
            Self::PostgreSql => "PostgreSQL",
        })
    }
}

/// The settings in force.
#[derive(Clone, Debug)]
pub(crate) struct InForce {
    loaded: Loaded,
    /// Looked for only when it is needed.
    run_env: OnceLock<Option<RunEnv>>,
}

impl Context {
    /// Loads the settings; servers that they say nothing about are looked up in `.run/env`.
    pub(crate) fn load(&self) -> anyhow::Result<InForce> {
        let in_force = InForce::load(Layers::from_process(self.config.clone()), nearest)?;
        if self.verbose {
            output::whisper(&in_force.sources());
        }
        Ok(in_force)
    }
}

fn nearest() -> Option<RunEnv> {
    let dir = std::env::current_dir().unwrap_or_default();
    let program = std::env::current_exe().ok();
    RunEnv::find(&dir, program.as_deref()).unwrap_or_else(|unreadable| {
        let (path, source) = (unreadable.path.display(), unreadable.source);
        output::complain(&format!("platziverse: {path} is passed over: {source}"));
        None
    })
}

impl InForce {
    fn load(
        mut layers: Layers,
        nearest: impl FnOnce() -> Option<RunEnv>,
    ) -> Result<Self, ConfigErrors> {
        let loaded = Settings::load(&layers)?;
        let mut servers = Server::ALL.to_vec();
        servers.retain(|server| server.said(&loaded).is_none());
        let run_env = OnceLock::new();
        if servers.is_empty() {
            return Ok(Self { loaded, run_env });
        }
        let Some(file) = run_env.get_or_init(nearest) else {
            return Ok(Self { loaded, run_env });
        };
        for server in servers {
            if let Some(url) = file.get(server.address()) {
                let key = server.address().to_owned();
                let origin = Origin::File { path: file.path.clone(), key };
                layers.found.push((server.url(), url.to_owned(), origin));
            }
        }
        Ok(Self { loaded: Settings::load(&layers)?, run_env })
    }

    /// The file of addresses, if there is one.
    pub(crate) fn run_env(&self) -> Option<&RunEnv> {
        self.run_env.get_or_init(nearest).as_ref()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.loaded.settings
    }

    /// How this process is named in RabbitMQ and PostgreSQL.
    pub(crate) fn connection_name(&self) -> String {
        Service::new("cli", self.settings().clone()).connection_name()
    }

    /// Every setting, with where it came from.
    pub(crate) fn rows(&self) -> Vec<Row> {
        self.loaded.show()
    }

    /// In words, that a file is not read although it is there, if so.
    pub(crate) fn passed_over(&self) -> Option<String> {
        let (read, not) = (self.loaded.file.as_ref()?, self.loaded.passed_over.as_ref()?);
        Some(format!("{} is read, and {} is not.", read.display(), not.display()))
    }

    /// Where a server's address came from; `None` if it is built in.
    fn source(&self, server: Server) -> Option<String> {
        server.said(&self.loaded).map(|(key, origin)| origin.describe(&key))
    }

    fn sources(&self) -> String {
        let source = |server| self.source(server).unwrap_or_else(|| "built-in address".to_owned());
        Server::ALL.map(|server| format!("{server}: {}", source(server))).join("; ")
    }

    /// An error of the database, with what to do if it was not reached and nothing says where it
    /// is.
    pub(crate) fn of_store(&self, error: StoreError) -> anyhow::Error {
        if matches!(error, StoreError::Connect { .. } | StoreError::ConnectTimeout { .. }) {
            self.unreached(Server::PostgreSql, &error)
        } else {
            error.into()
        }
    }

    /// The error of a server that was not reached, with what to do if nothing says where it is.
    pub(crate) fn unreached(&self, server: Server, error: &dyn Error) -> anyhow::Error {
        let text = chain(error);
        if self.source(server).is_some() {
            return anyhow!(text);
        }
        let variable = server.variable();
        anyhow!(
            "{text}\nNothing says where {server} is, so this is the built-in address: start the \
             system with scripts/up, or give --config FILE, or set {variable}."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "AMQP_URL='amqp://u:hunter2@run:1/v'\nDATABASE_URL='postgres://u:hunter2@run:2/d'\n";

    fn load(env: &[(&str, &str)], file: &'static str) -> Result<InForce, String> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let dir = PathBuf::from("/nonexistent");
        let layers = Layers { env: env.collect(), dir, ..Layers::default() };
        let run_env = RunEnv::read(PathBuf::from("/x/.run/env"), file);
        InForce::load(layers, || Some(run_env)).map_err(|errors| errors.to_string())
    }

    fn loaded(env: &[(&str, &str)], file: &'static str) -> InForce {
        load(env, file).unwrap()
    }

    #[test]
    fn addresses_that_nothing_says_are_found() {
        let check = |env: &[(&str, &str)], amqp: &str, database: &str, sources: &str| {
            let in_force = loaded(env, FILE);
            assert_eq!(in_force.settings().amqp.address(), amqp, "{env:?}");
            assert_eq!(in_force.settings().database.address(), database, "{env:?}");
            assert_eq!(in_force.sources(), sources, "{env:?}");
        };
        let (amqp, database) = ("/x/.run/env (AMQP_URL)", "/x/.run/env (DATABASE_URL)");
        let both = format!("RabbitMQ: {amqp}; PostgreSQL: {database}");
        check(&[], "run:1/v", "run:2/d", &both);
        check(&[("PLATZIVERSE_AMQP__HEARTBEAT", "5s")], "run:1/v", "run:2/d", &both);
        let sources = format!("RabbitMQ: {amqp}; PostgreSQL: DB_HOST");
        check(&[("DB_HOST", "h")], "run:1/v", "h:5432/platziverse", &sources);
        let sources = format!("RabbitMQ: PLATZIVERSE_AMQP__VHOST; PostgreSQL: {database}");
        check(&[("PLATZIVERSE_AMQP__VHOST", "w")], "127.0.0.1:5672/w", "run:2/d", &sources);
    }

    #[test]
    fn what_is_wrong_in_the_file_of_addresses_is_told_of_it() {
        let error = load(&[], "AMQP_URL='http://u:hunter2@h'").unwrap_err();
        assert!(error.contains("/x/.run/env (AMQP_URL): amqp.url: found [redacted]"), "{error}");
        assert!(!error.contains("PLATZIVERSE") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn without_a_file_the_error_says_what_to_do() {
        let error = std::io::Error::other("refused");
        let text = loaded(&[], "").unreached(Server::RabbitMq, &error).to_string();
        assert!(text.starts_with("refused\nNothing says where RabbitMQ is"), "{text}");
        assert!(text.contains("PLATZIVERSE_AMQP__URL"), "{text}");
        let text = loaded(&[], FILE).unreached(Server::RabbitMq, &error).to_string();
        assert_eq!(text, "refused");
    }

    #[test]
    fn rows_name_the_file_and_no_secret() {
        let rows = loaded(&[], FILE).rows();
        let origin =
            |key: &str| rows.iter().find(|row| row.key == key).map(|row| row.origin.describe(key));
        assert_eq!(origin("amqp.host").as_deref(), Some("/x/.run/env (AMQP_URL)"));
        assert_eq!(origin("amqp.heartbeat").as_deref(), Some("default"));
        assert!(!format!("{rows:?}").contains("hunter2"));
    }
}
