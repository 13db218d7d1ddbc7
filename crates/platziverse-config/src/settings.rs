//! All sections, and how they are loaded.

use std::path::PathBuf;

use figment::Figment;
use serde::{Deserialize, Serialize};

use crate::layers::Layers;
use crate::origin::Origins;
use crate::problem::{ConfigErrors, Problems};
use crate::sections::aggregator::AggregatorConfig;
use crate::sections::amqp::AmqpConfig;
use crate::sections::database::DatabaseConfig;
use crate::sections::gateway::GatewayConfig;
use crate::sections::ingest::IngestConfig;
use crate::sections::log::LogConfig;
use crate::sections::mom::MomConfig;
use crate::sections::ops::OpsConfig;
use crate::sections::tasks::TasksConfig;
use crate::sections::worker::WorkerConfig;
use crate::{environment, file, values};

/// Every setting. The defaults are those of one machine that runs everything.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How RabbitMQ is reached.
    pub amqp: AmqpConfig,
    /// How PostgreSQL is reached.
    pub database: DatabaseConfig,
    /// The MQTT edge.
    pub gateway: GatewayConfig,
    /// What a worker does.
    pub worker: WorkerConfig,
    /// The queues of agents' messages and the workers that store them.
    pub ingest: IngestConfig,
    /// Events and commands.
    pub tasks: TasksConfig,
    /// Topics and queues for applications.
    pub mom: MomConfig,
    /// One WebSocket between a client and the services behind the broker.
    pub aggregator: AggregatorConfig,
    /// What an operator sees of a service, and how it ends.
    pub ops: OpsConfig,
    /// What is logged, and how it looks.
    pub log: LogConfig,
}

/// Settings as they were loaded: valid, and with where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings in force.
    pub settings: Settings,
    /// Where each came from.
    pub origins: Origins,
    /// The file that was read, if any was.
    pub file: Option<PathBuf>,
    /// A file that would have been read if that one were not there: `settings.json` beside
    /// `platziverse.toml`.
    pub passed_over: Option<PathBuf>,
}

impl Settings {
    /// Reads all layers, or says everything that is wrong with them.
    pub fn load(layers: &Layers) -> Result<Loaded, ConfigErrors> {
        let mut problems = Problems::default();
        let mut values = values::defaults();
        let chosen = layers.chosen();
        if let Some(path) = &chosen.file {
            let layer = file::read(path, &mut problems);
            values = layer.over(values, &mut problems);
        }
        for layer in [environment::read(layers, &mut problems), layers.found()] {
            values = layer.over(values, &mut problems);
        }
        values = values::with_port_of_tls(values);

        let settings = Self::of(&values, &mut problems);
        let origins = Origins::of_all(&values);
        settings.validate_together(&origins, &mut problems);
        problems.into_result()?;
        Ok(Loaded { settings, origins, file: chosen.file, passed_over: chosen.passed_over })
    }

    /// From values that are all of their kind.
    fn of(values: &Figment, problems: &mut Problems) -> Self {
        values.extract().unwrap_or_else(|error| {
            // Of the error only where it is: it quotes the value, which may be secret.
            let key = error.path.join(".");
            problems.wrong(key, "a value that does not fit", "what the example file shows");
            Self::default()
        })
    }

    fn validate_sections(&self, problems: &mut Problems) {
        self.amqp.validate(problems);
        self.database.validate(problems);
        self.gateway.validate(problems);
        self.worker.validate(problems);
        self.ingest.validate(problems);
        self.tasks.validate(problems);
        self.mom.validate(problems);
        self.aggregator.validate(problems);
        self.ops.validate(problems);
        self.log.validate(problems);
    }

    /// What only shows when the layers are one; settings known to be wrong are not named again.
    fn validate_together(&self, origins: &Origins, problems: &mut Problems) {
        let mut found = Problems::default();
        self.validate_sections(&mut found);
        for problem in found.0 {
            if !problems.0.iter().any(|known| known.key == problem.key) {
                let origin = origins.of(&problem.key);
                problems.add(origin, &problem.key, problem.fault.from(origin));
            }
        }
    }
}
