//! A corner of RabbitMQ and PostgreSQL of a test's own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use crate::start::{self, Start};
use crate::{Client, Database, Ended, Management, Options, Process, QoS, Servers, Version};
use crate::{PATIENCE, environment, free_port, name, url};

static SWEPT: OnceCell<()> = OnceCell::const_new();

const WORKER: &str = "platziverse-worker";

/// Private servers are heavy: one world of that kind at a time.
static PRIVATE: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(1)));

/// A vhost and a database, and the means to start services that use them. Both go when this is
/// dropped: declare it before what runs in it.
#[derive(Debug)]
pub struct World {
    amqp_url: String,
    management: Management,
    database: Database,
    folder: PathBuf,
    started: AtomicU32,
    /// Whether the vhost and the database go while their servers stay.
    outlived: bool,
    // Dropped in this order: the servers end before the next private world may begin.
    servers: Option<Arc<Servers>>,
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
        let urls = ["TEST_AMQP_URL", "TEST_MANAGEMENT_URL", "TEST_DATABASE_URL"];
        let world = Self::new(&name::fresh(), urls.map(environment::required), None);
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
        Self::private_of(&["all"]).await
    }

    /// The same with a RabbitMQ cluster of three. Its first node is the one that is used; see
    /// [`Servers::address`] for the others.
    pub async fn cluster() -> Self {
        Self::private_of(&["cluster", "postgres"]).await
    }

    async fn private_of(parts: &[&str]) -> Self {
        let permit = PRIVATE.clone().acquire_owned().await.expect("the semaphore is never closed");
        let name = name::fresh();
        let servers = Arc::new(Servers::start(&name, parts).await);
        let mut world = Self::new(&name, urls(&servers), Some(servers));
        world._permit = Some(permit);
        world.outlived = false;
        world.make().await;
        world.migrate().await;
        world
    }

    /// A fresh vhost and a migrated database on servers that others share; they go when this is
    /// dropped, the servers stay. With a cluster, the node of AMQP_URL is the one that is used.
    pub async fn on(servers: Arc<Servers>) -> Self {
        let world = Self::new(&name::fresh(), urls(&servers), Some(servers));
        world.make().await;
        world.migrate().await;
        world
    }

    fn new(
        name: &str,
        [amqp, management, database]: [String; 3],
        servers: Option<Arc<Servers>>,
    ) -> Self {
        let folder = std::env::temp_dir().join(name::of_logs(name));
        start::make_folder(&folder);
        Self {
            amqp_url: url::with_path(&amqp, name),
            management: Management::new(&management, name),
            database: Database::new(&database, name),
            folder,
            started: AtomicU32::new(0),
            outlived: true,
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

    /// The name of the vhost.
    pub fn vhost(&self) -> &str {
        self.database.name()
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

    /// The same vhost through another address: another node, or a [`crate::Proxy`].
    pub fn amqp_url_at(&self, address: SocketAddr) -> String {
        url::with_address(&self.amqp_url, address)
    }

    /// Where the RabbitMQ of [`World::amqp_url`] listens.
    pub fn amqp_address(&self) -> SocketAddr {
        url::address(&self.amqp_url)
    }

    /// The folder with the logs of what runs here.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// The servers. Fails the test if they are those that `scripts/test` has started for all.
    pub fn servers(&self) -> &Servers {
        self.servers.as_ref().expect("World::private() and World::on() have servers to stop")
    }

    /// The same, for [`World::on`].
    pub fn shared_servers(&self) -> Arc<Servers> {
        self.servers.clone().expect("World::private() and World::on() have servers to share")
    }

    /// Starts a gateway and waits until it is ready.
    pub async fn gateway(&self) -> Process {
        self.gateway_with(&[]).await
    }

    /// Starts a gateway with more settings (`PLATZIVERSE_GATEWAY__…`) and waits until it is ready.
    pub async fn gateway_with(&self, settings: &[(&str, &str)]) -> Process {
        self.try_gateway_with(settings).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, or why it does not become ready.
    pub async fn try_gateway_with(&self, settings: &[(&str, &str)]) -> Result<Process, String> {
        ready(self.try_spawn_gateway(settings)?).await
    }

    /// Starts a gateway.
    pub fn spawn_gateway(&self, settings: &[(&str, &str)]) -> Process {
        self.try_spawn_gateway(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_spawn_gateway(&self, settings: &[(&str, &str)]) -> Result<Process, String> {
        let (listen, ops) = (free_port(), free_port());
        let own = [
            ("PLATZIVERSE_AMQP__URL", self.amqp_url.clone()),
            ("PLATZIVERSE_GATEWAY__LISTEN", listen.to_string()),
            ("PLATZIVERSE_OPS__LISTEN", ops.to_string()),
        ];
        let start = self.prepare("platziverse-gateway", &[], &own, settings);
        let mqtt = start.settings.iter().find(|(key, _)| key == "PLATZIVERSE_GATEWAY__LISTEN");
        let mqtt = mqtt.and_then(|(_, value)| value.parse().ok()).unwrap_or(listen);
        Process::spawn(start, &self.label("gateway"), ops, Some(mqtt))
    }

    /// Starts a worker and waits until it is ready.
    pub async fn worker(&self) -> Process {
        self.worker_with(&[]).await
    }

    /// Starts a worker with more settings and waits until it is ready.
    pub async fn worker_with(&self, settings: &[(&str, &str)]) -> Process {
        self.try_worker_with(settings).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, or why it does not become ready.
    pub async fn try_worker_with(&self, settings: &[(&str, &str)]) -> Result<Process, String> {
        ready(self.try_spawn_worker(WORKER, settings)?).await
    }

    /// Starts a worker that is another program, `examples/…`, with more settings, and waits until it
    /// is ready.
    pub async fn worker_of(&self, program: &'static str, settings: &[(&str, &str)]) -> Process {
        let spawned = self.try_spawn_worker(program, settings);
        let spawned = spawned.unwrap_or_else(|error| panic!("{error}"));
        ready(spawned).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts a worker.
    pub fn spawn_worker(&self, settings: &[(&str, &str)]) -> Process {
        self.try_spawn_worker(WORKER, settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_spawn_worker(
        &self,
        program: &'static str,
        settings: &[(&str, &str)],
    ) -> Result<Process, String> {
        let ops = free_port();
        let own = [
            ("PLATZIVERSE_AMQP__URL", self.amqp_url.clone()),
            ("PLATZIVERSE_DATABASE__URL", self.database.url().to_owned()),
            ("PLATZIVERSE_OPS__LISTEN", ops.to_string()),
        ];
        let start = self.prepare(program, &[], &own, settings);
        Process::spawn(start, &self.label("worker"), ops, None)
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
        self.run_reading(program, arguments, settings, "").await
    }

    /// The same with something on the program's stdin.
    pub async fn run_reading(
        &self,
        program: &'static str,
        arguments: &[&str],
        settings: &[(&str, &str)],
        input: &str,
    ) -> Ended {
        self.prepare_any(program, arguments, settings).run(input).await
    }

    /// The same at a terminal, where somebody types `typed`: how it ended, and what was shown.
    pub async fn run_at_terminal(
        &self,
        program: &'static str,
        arguments: &[&str],
        settings: &[(&str, &str)],
        typed: &str,
    ) -> (ExitStatus, String) {
        self.prepare_any(program, arguments, settings).run_at_terminal(typed).await
    }

    /// A program that may be any of them.
    fn prepare_any(
        &self,
        program: &'static str,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> Start {
        let own = [
            ("PLATZIVERSE_AMQP__URL", self.amqp_url.clone()),
            ("PLATZIVERSE_DATABASE__URL", self.database.url().to_owned()),
            ("PLATZIVERSE_GATEWAY__LISTEN", free_port().to_string()),
            ("PLATZIVERSE_OPS__LISTEN", free_port().to_string()),
        ];
        self.prepare(program, arguments, &own, settings)
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

    pub(crate) fn prepare(
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

    pub(crate) fn label(&self, kind: &str) -> String {
        format!("{kind}-{}", self.started.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.outlived {
            self.management.remove_vhost();
            remove(self.database.clone());
        }
        if !std::thread::panicking() {
            // What stays behind are logs among temporary files.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn urls(servers: &Servers) -> [String; 3] {
    ["AMQP_URL", "MANAGEMENT_URL", "DATABASE_URL"].map(|key| servers.url(key))
}

pub(crate) async fn ready(mut process: Process) -> Result<Process, String> {
    match (process.try_ready(PATIENCE).await, process.panicked()) {
        (Ok(()), None) => Ok(process),
        (Ok(()), Some(panic)) => Err(format!("{} panicked:\n{panic}", process.name())),
        // Its panic is in the end of its log.
        (Err(error), _) => Err(error),
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
