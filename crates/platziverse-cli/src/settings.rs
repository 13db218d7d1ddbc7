//! The settings that a command works with.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use anyhow::anyhow;
use platziverse_config::{ConfigErrors, Layers, Loaded, Origin, Row, Settings};
use platziverse_service::{Service, chain};

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
    /// The file of addresses, and the servers that are found by it.
    found: Option<(RunEnv, Vec<Server>)>,
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
        let found = if servers.is_empty() { None } else { nearest() };
        let Some(file) = found else {
            return Ok(Self { loaded, found: None });
        };
        servers.retain(|server| file.get(server.address()).is_some());
        for server in &servers {
            let url = file.get(server.address()).unwrap_or_default();
            layers.env.push((server.variable().to_owned(), url.to_owned()));
        }
        Ok(Self { loaded: Settings::load(&layers)?, found: Some((file, servers)) })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.loaded.settings
    }

    /// How this process is named in RabbitMQ and PostgreSQL.
    pub(crate) fn connection_name(&self) -> String {
        Service::new("cli", self.settings().clone()).connection_name()
    }

    /// Every setting, with where it really came from.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = self.loaded.show();
        for row in &mut rows {
            if let Some((file, server)) = self.found_for(&row.origin) {
                row.origin = found_origin(file, server);
            }
        }
        rows
    }

    /// The file of addresses, if an origin is only how it was handed to the settings.
    fn found_for(&self, origin: &Origin) -> Option<(&RunEnv, Server)> {
        let (file, servers) = self.found.as_ref()?;
        let stands_for = |server: &Server| match origin {
            Origin::Env { variable } => variable == server.variable(),
            Origin::Default | Origin::File { .. } | Origin::SecretFile { .. } => false,
        };
        Some((file, servers.iter().copied().find(stands_for)?))
    }

    /// Where a server's address came from; `None` if it is built in.
    fn source(&self, server: Server) -> Option<String> {
        let (key, origin) = server.said(&self.loaded)?;
        let origin = self
            .found_for(&origin)
            .map_or(origin.clone(), |(file, server)| found_origin(file, server));
        Some(origin.describe(&key))
    }

    fn sources(&self) -> String {
        let source = |server| self.source(server).unwrap_or_else(|| "built-in address".to_owned());
        Server::ALL.map(|server| format!("{server}: {}", source(server))).join("; ")
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

fn found_origin(file: &RunEnv, server: Server) -> Origin {
    Origin::File { path: file.path.clone(), key: server.address().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "AMQP_URL='amqp://u:hunter2@run:1/v'\nDATABASE_URL='postgres://u:hunter2@run:2/d'\n";

    fn load(env: &[(&str, &str)], file: &'static str) -> InForce {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let dir = PathBuf::from("/nonexistent");
        let layers = Layers { file: None, env: env.collect(), dir };
        InForce::load(layers, || Some(RunEnv::read(PathBuf::from("/x/.run/env"), file))).unwrap()
    }

    #[test]
    fn addresses_that_nothing_says_are_found() {
        let check = |env: &[(&str, &str)], amqp: &str, database: &str, sources: &str| {
            let in_force = load(env, FILE);
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
    fn without_a_file_the_error_says_what_to_do() {
        let error = std::io::Error::other("refused");
        let text = load(&[], "").unreached(Server::RabbitMq, &error).to_string();
        assert!(text.starts_with("refused\nNothing says where RabbitMQ is"), "{text}");
        assert!(text.contains("PLATZIVERSE_AMQP__URL"), "{text}");
        let text = load(&[], FILE).unreached(Server::RabbitMq, &error).to_string();
        assert_eq!(text, "refused");
    }

    #[test]
    fn rows_name_the_file_and_no_secret() {
        let rows = load(&[], FILE).rows();
        let origin =
            |key: &str| rows.iter().find(|row| row.key == key).map(|row| row.origin.describe(key));
        assert_eq!(origin("amqp.host").as_deref(), Some("/x/.run/env (AMQP_URL)"));
        assert_eq!(origin("amqp.heartbeat").as_deref(), Some("default"));
        assert!(!format!("{rows:?}").contains("hunter2"));
    }
}
