//! A corner of RabbitMQ and PostgreSQL of a test's own.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::process::{self, Start};
use crate::{Client, Database, Ended, Management, Options, Process, QoS, Servers, Version};
use crate::{environment, free_port, name};

static SWEPT: OnceCell<()> = OnceCell::const_new();

/// Private servers are heavy: one world of that kind at a time.
static PRIVATE: std::sync::LazyLock<std::sync::Arc<Semaphore>> =
    std::sync::LazyLock::new(|| std::sync::Arc::new(Semaphore::new(1)));

/// A vhost and a database, and the means to start services that use them. Both go when this is
/// dropped: declare it before what runs in it.
#[derive(Debug)]
pub struct World {
    amqp_url: String,
    management: Management,
    database: Database,
    folder: PathBuf,
    started: AtomicU32,
    // Dropped in this order: the servers end before the next private world may begin.
    servers: Option<Servers>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl World {
    /// A vhost and a migrated database on the servers that `scripts/test` has started.
    pub async fn start() -> Self {
        let world = Self::unmigrated().await;
        world.migrate().await;
        world
    }

    /// The same, with an empty database.
    pub async fn unmigrated() -> Self {
        let url = environment::required;
        let urls = [url("TEST_AMQP_URL"), url("TEST_MANAGEMENT_URL"), url("TEST_DATABASE_URL")];
        let world = Self::new(&name::fresh(), urls, None);
        SWEPT
            .get_or_init(|| async {
                name::sweep_logs();
                world.management.sweep();
                world.database.sweep().await;
            })
            .await;
        world.make().await;
        world
    }

    /// A world with servers of its own, which [`World::servers`] can stop and start.
    pub async fn private() -> Self {
        let permit = PRIVATE.clone().acquire_owned().await.expect("the semaphore is never closed");
        let name = name::fresh();
        let servers = Servers::start(&name).await;
        let urls = ["AMQP_URL", "MANAGEMENT_URL", "DATABASE_URL"].map(|key| servers.url(key));
        let mut world = Self::new(&name, urls, Some(servers));
        world._permit = Some(permit);
        world.make().await;
        world.migrate().await;
        world
    }

    fn new(
        name: &str,
        [amqp, management, database]: [String; 3],
        servers: Option<Servers>,
    ) -> Self {
        let (server, _) = amqp.rsplit_once('/').unwrap_or_else(|| {
            panic!("the AMQP URL must look like amqp://user:password@host:port/vhost")
        });
        let folder = std::env::temp_dir().join(name::of_logs(name));
        process::make_folder(&folder);
        Self {
            amqp_url: format!("{server}/{name}"),
            management: Management::new(&management, name),
            database: Database::new(&database, name),
            folder,
            started: AtomicU32::new(0),
            servers,
            _permit: None,
        }
    }

    async fn make(&self) {
        self.management.make_vhost();
        self.database.create().await;
    }

    async fn migrate(&self) {
        let ended = self.platziverse(&["db", "migrate"]).await;
        assert!(ended.status.success(), "platziverse db migrate: {}{}", ended.stdout, ended.stderr);
    }

    /// RabbitMQ's management API for this vhost.
    pub fn rabbitmq(&self) -> &Management {
        &self.management
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The AMQP URL of the vhost, with credentials.
    pub fn amqp_url(&self) -> &str {
        &self.amqp_url
    }

    /// The private servers. Fails the test if they are shared with others.
    pub fn servers(&self) -> &Servers {
        self.servers.as_ref().expect("only World::private() has servers that can be stopped")
    }

    /// Starts a gateway and waits until it is ready.
    pub async fn gateway(&self) -> Process {
        self.gateway_with(&[]).await
    }

    /// Starts a gateway with more settings (`PLATZIVERSE_GATEWAY__…`) and waits until it is ready.
    pub async fn gateway_with(&self, settings: &[(&str, &str)]) -> Process {
        let mut gateway = self.spawn_gateway(settings);
        gateway.ready().await;
        gateway
    }

    /// Starts a gateway.
    pub fn spawn_gateway(&self, settings: &[(&str, &str)]) -> Process {
        let (listen, ops) = (free_port(), free_port());
        let own = [
            ("PLATZIVERSE_AMQP__URL", self.amqp_url.clone()),
            ("PLATZIVERSE_GATEWAY__LISTEN", listen.to_string()),
            ("PLATZIVERSE_OPS__LISTEN", ops.to_string()),
        ];
        let start = self.prepare("platziverse-gateway", &[], &own, settings);
        let mqtt = start.settings.iter().find(|(key, _)| key == "PLATZIVERSE_GATEWAY__LISTEN");
        let mqtt = mqtt.and_then(|(_, value)| value.parse().ok()).unwrap_or(listen);
        start.spawn(&self.label("gateway"), ops, Some(mqtt))
    }

    /// Starts a worker and waits until it is ready.
    pub async fn worker(&self) -> Process {
        self.worker_with(&[]).await
    }

    /// Starts a worker with more settings and waits until it is ready.
    pub async fn worker_with(&self, settings: &[(&str, &str)]) -> Process {
        let mut worker = self.spawn_worker(settings);
        worker.ready().await;
        worker
    }

    /// Starts a worker.
    pub fn spawn_worker(&self, settings: &[(&str, &str)]) -> Process {
        let ops = free_port();
        let own = [
            ("PLATZIVERSE_AMQP__URL", self.amqp_url.clone()),
            ("PLATZIVERSE_DATABASE__URL", self.database.url().to_owned()),
            ("PLATZIVERSE_OPS__LISTEN", ops.to_string()),
        ];
        let start = self.prepare("platziverse-worker", &[], &own, settings);
        start.spawn(&self.label("worker"), ops, None)
    }

    /// Runs the operator's command to its end.
    pub async fn platziverse(&self, arguments: &[&str]) -> Ended {
        self.run("platziverse", arguments, &[]).await
    }

    /// Runs a program with this world's settings and more to its end.
    pub async fn run(
        &self,
        program: &'static str,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> Ended {
        let own = [
            ("PLATZIVERSE_AMQP__URL", self.amqp_url.clone()),
            ("PLATZIVERSE_DATABASE__URL", self.database.url().to_owned()),
            ("PLATZIVERSE_GATEWAY__LISTEN", free_port().to_string()),
            ("PLATZIVERSE_OPS__LISTEN", free_port().to_string()),
        ];
        self.prepare(program, arguments, &own, settings).run().await
    }

    /// Connects a client with an id of its own; fails the test if it is refused.
    pub async fn client(&self, gateway: &Process, version: Version) -> Client {
        Client::connect(Options::new(gateway.mqtt(), version)).await.unwrap_or_else(|refused| {
            panic!("a client was refused: {refused}");
        })
    }

    /// A connected client that has subscribed to `filter` at QoS 1.
    pub async fn listener(&self, gateway: &Process, version: Version, filter: &str) -> Client {
        let client = self.client(gateway, version).await;
        assert_eq!(client.subscribe(filter, QoS::AtLeastOnce).await, [1], "{filter}");
        client
    }

    fn prepare(
        &self,
        program: &'static str,
        arguments: &[&str],
        own: &[(&str, String)],
        more: &[(&str, &str)],
    ) -> Start {
        let mut settings: HashMap<String, String> =
            own.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        settings.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Start {
            program,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            settings: settings.into_iter().collect(),
            folder: self.folder.clone(),
        }
    }

    fn label(&self, kind: &str) -> String {
        format!("{kind}-{}", self.started.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.servers.is_none() {
            self.management.remove_vhost();
            remove(self.database.clone());
        }
        if !std::thread::panicking() {
            // What stays behind are logs among temporary files.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Removes a database from outside of any runtime: the test's own may be ending.
fn remove(database: Database) {
    let task = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(database.remove());
        }
    };
    // The sweep of a later run removes what stays behind.
    let _ = std::thread::spawn(task).join();
}
