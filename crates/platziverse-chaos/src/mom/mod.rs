//! Topics and queues for applications as load: publishers, consumers, and a catalogue that is changed
//! all the time.

pub mod caller;
pub mod churn;
pub mod consumer;
pub mod kept;
pub mod kind;
pub mod letters;
pub mod publisher;
pub mod reconcile;

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use platziverse_client::{Client, Error};
use platziverse_testkit::{Mom as Server, MomUser, Proxy, Servers, World};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::caller::Caller;
use self::churn::{Churner, Temper};
use self::kind::{Address, Mailbox, Publisher};
use self::letters::Letters;
use self::reconcile::Promises;
use crate::fleet::Order;
use crate::reconcile::Tally;

/// Of the messages that are wanted a second, the share that there are.
const SHARE: f64 = 0.125;
/// Publishers over HTTP; over gRPC there is one for each address.
const HTTP_PUBLISHERS: usize = 6;
/// Consumers of each mailbox.
const CONSUMERS: [(Mailbox, usize); 6] = [
    (Mailbox::Lent, 4),
    (Mailbox::Streamed, 2),
    (Mailbox::Auto, 3),
    (Mailbox::NewsOfHttp, 3),
    (Mailbox::NewsOfGrpc, 1),
    (Mailbox::NewsOfReader, 2),
];
/// How long a change may be half-done once nobody begins any more.
const REST: Duration = Duration::from_secs(30);
/// How long clients may take to end.
const END: Duration = Duration::from_secs(20);

/// The load.
#[derive(Debug)]
pub struct Mom {
    /// What clients know.
    pub letters: Letters,
    orders: watch::Sender<Order>,
    kills: watch::Sender<u64>,
    /// Between the consumers that can be killed and the servers.
    ways: Vec<Proxy>,
    /// Whether those who change the catalogue have come to rest.
    rests: Vec<watch::Receiver<bool>>,
    /// Since when all of them have.
    resting: Mutex<Option<Instant>>,
    tasks: JoinSet<()>,
}

/// Where clients find servers.
#[derive(Clone)]
struct Addresses {
    http: Vec<SocketAddr>,
    grpc: Vec<SocketAddr>,
}

/// The users.
struct Users {
    http: MomUser,
    grpc: MomUser,
    reader: MomUser,
    creator: MomUser,
    guest: MomUser,
}

impl Mom {
    /// Makes the users and what lasts, and begins with a share of `rate` messages a second.
    pub async fn start(servers: &[Server], rate: f64) -> Result<Self, String> {
        let first = servers.first().ok_or("there is no server of topics and queues")?;
        let users = Users {
            http: MomUser::new(first).await,
            grpc: MomUser::new(first).await,
            reader: MomUser::new(first).await,
            creator: MomUser::new(first).await,
            guest: MomUser::new(first).await,
        };
        users.prepare().await?;
        let id = |user: &MomUser| user.id.parse().map_err(|error| format!("a user's id: {error}"));
        let letters =
            Letters::of([(Publisher::Http, id(&users.http)?), (Publisher::Grpc, id(&users.grpc)?)]);
        let direct = Addresses {
            http: servers.iter().map(Server::http).collect(),
            grpc: servers.iter().map(Server::grpc).collect(),
        };
        let (ways, through) = ways(&direct).await;
        let mut this = Self {
            letters,
            orders: watch::channel(Order::Report).0,
            kills: watch::channel(0).0,
            ways,
            rests: Vec::new(),
            resting: Mutex::default(),
            tasks: JoinSet::new(),
        };
        this.publish(&users, &direct, SHARE * rate)?;
        this.consume(&users, &direct, &through);
        this.churn(&users, &direct);
        Ok(this)
    }

    fn publish(&mut self, users: &Users, at: &Addresses, rate: f64) -> Result<(), String> {
        let desk = |publishers: usize| publisher::Desk {
            letters: self.letters.clone(),
            orders: self.orders.subscribe(),
            // Half of it over HTTP, half over gRPC.
            pause: Duration::from_secs_f64(2.0 * publishers as f64 / rate.max(0.01)),
        };
        for place in 0..HTTP_PUBLISHERS {
            let caller = at.caller(&users.http);
            self.tasks.spawn(publisher::over_http(desk(HTTP_PUBLISHERS), caller, place));
        }
        for (place, to) in Address::ALL.into_iter().enumerate() {
            let client = at.client(&users.grpc, place, Duration::ZERO);
            let client = client.map_err(|error| error.to_string())?;
            self.tasks.spawn(publisher::over_grpc(desk(Address::ALL.len()), client, to));
        }
        Ok(())
    }

    fn consume(&mut self, users: &Users, direct: &Addresses, through: &Addresses) {
        let all = CONSUMERS.iter().flat_map(|(mailbox, count)| (0..*count).map(|n| (*mailbox, n)));
        for (mailbox, place) in all {
            let desk = consumer::Desk {
                letters: self.letters.clone(),
                orders: self.orders.subscribe(),
                kills: self.kills.subscribe(),
                mailbox,
                place,
            };
            match mailbox {
                Mailbox::Lent | Mailbox::NewsOfHttp => {
                    self.tasks.spawn(consumer::lent(desk, through.caller(&users.http)));
                }
                // Whether a server was there at all must be known.
                Mailbox::Auto | Mailbox::Fleeting => {
                    self.tasks.spawn(consumer::auto(desk, direct.caller(&users.http)));
                }
                Mailbox::Streamed | Mailbox::NewsOfGrpc | Mailbox::NewsOfReader => {
                    let of_reader = mailbox == Mailbox::NewsOfReader;
                    let user = if of_reader { &users.reader } else { &users.grpc };
                    let (user, at) = (user.clone(), through.clone());
                    let client = move || at.client(&user, place, END);
                    self.tasks.spawn(consumer::streamed(desk, client));
                }
            }
        }
    }

    fn churn(&mut self, users: &Users, direct: &Addresses) {
        let churners = [Temper::Fickle, Temper::Stubborn, Temper::Stubborn];
        for (place, temper) in churners.into_iter().enumerate() {
            let (rests, resting) = watch::channel(false);
            self.rests.push(resting);
            let churner = Churner {
                letters: self.letters.clone(),
                orders: self.orders.subscribe(),
                creator: direct.caller(&users.creator),
                subscriber: direct.caller(&users.guest),
                server: place,
                temper,
                rests,
            };
            match place {
                2 => self.tasks.spawn(churn::flit(churner)),
                _ => self.tasks.spawn(churner.run()),
            };
        }
    }

    /// Gives all clients an order.
    pub fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// Kills every consumer that has to acknowledge: its connections are reset, and what it holds is
    /// forgotten. Others take its place.
    pub fn kill_consumers(&self) {
        self.ways.iter().for_each(Proxy::reset);
        self.kills.send_modify(|kills| *kills += 1);
    }

    /// How many of those consumers there are.
    pub fn acknowledging(&self) -> usize {
        let those = CONSUMERS.iter().filter(|(mailbox, _)| *mailbox != Mailbox::Auto);
        those.map(|(_, count)| count).sum()
    }

    /// Whether every change of the catalogue has come to its end; what has not 30 s after the last
    /// request is told at the end.
    pub async fn is_at_rest(&self, world: &World) -> Result<(), String> {
        let rest = |rests: &watch::Receiver<bool>| *rests.borrow();
        if !self.rests.iter().all(rest) {
            return Err("somebody still changes the catalogue".to_owned());
        }
        let since = *self
            .resting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert_with(Instant::now);
        match kept::unfinished(world, "").await? {
            count if count > 0 && since.elapsed() < REST => {
                Err(format!("{count} changes are half-done"))
            }
            _ => Ok(()),
        }
    }

    /// Ends, and counts.
    pub async fn close(
        &mut self,
        world: &World,
        servers: &Servers,
        promises: Promises,
    ) -> Result<Tally, String> {
        self.order(Order::End);
        let ending = async {
            while let Some(ended) = self.tasks.join_next().await {
                if ended.is_err_and(|error| error.is_panic()) {
                    self.letters.note("a client panicked", "its message is above".to_owned());
                }
            }
        };
        // Whoever has not ended is dropped with its connections.
        let _ = timeout(END, ending).await;
        let kept = kept::read(world, servers).await?;
        Ok(reconcile::reconcile(&self.letters.read(), &kept, promises))
    }
}

impl Users {
    /// Makes what lasts, and subscribes those who read.
    async fn prepare(&self) -> Result<(), String> {
        for address in Address::ALL {
            let path = address.path();
            let (all, name) = path.rsplit_once('/').unwrap_or_default();
            let new = json!({ "name": name }).to_string();
            done(&self.http, all, &new).await?;
            for user in [&self.grpc, &self.reader] {
                done(user, &format!("{path}/subscription"), "").await?;
            }
        }
        Ok(())
    }
}

async fn done(user: &MomUser, path: &str, body: &str) -> Result<(), String> {
    let answer = user.try_ask("POST", path, &[], body.as_bytes()).await?;
    match answer.status {
        200..300 => Ok(()),
        status => Err(format!("POST {path}: {status} {}", answer.text())),
    }
}

/// A proxy in front of each server's two listeners.
async fn ways(direct: &Addresses) -> (Vec<Proxy>, Addresses) {
    let (mut ways, mut lists) = (Vec::new(), [Vec::new(), Vec::new()]);
    for (list, addresses) in lists.iter_mut().zip([&direct.http, &direct.grpc]) {
        for address in addresses {
            let proxy = Proxy::start(*address).await;
            list.push(proxy.address());
            ways.push(proxy);
        }
    }
    let [http, grpc] = lists;
    (ways, Addresses { http, grpc })
}

impl Addresses {
    fn caller(&self, user: &MomUser) -> Caller {
        Caller::of(self.http.iter().map(|address| user.at_address(*address)))
    }

    /// A client that tries the servers from this one on.
    fn client(&self, user: &MomUser, place: usize, retry_for: Duration) -> Result<Client, Error> {
        let mut urls: Vec<_> =
            self.grpc.iter().map(|address| format!("http://{address}")).collect();
        let count = urls.len().max(1);
        urls.rotate_left(place % count);
        let mut urls = urls.into_iter();
        let first = Client::builder(urls.next().unwrap_or_default());
        urls.fold(first, platziverse_client::Builder::endpoint)
            .key(user.key())
            .retry_for(retry_for)
            .build()
    }
}
