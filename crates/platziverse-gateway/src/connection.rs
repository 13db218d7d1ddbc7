//! One MQTT connection: moves bytes, timers and events between its transport and its session, and
//! carries out what the session decides.

mod checking;
mod ending;
mod outbox;
mod publishing;
mod subscribing;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use self::outbox::Outbox;
use crate::codec::Codec;
use crate::frame::Fault;
use crate::hub::Hub;
use crate::mailbox::{self, Event, Inbox, Mailbox, Received};
use crate::packet::{Reason, Told};
use crate::registry::ConnectionId;
use crate::reporter::Reporter;
use crate::session::{Action, Delivery, Dropped, Session};
use crate::transport::Transport;

/// How many events are taken before what they led to is written.
const EVENTS_AT_ONCE: usize = 256;
/// How long a last word may take to reach a client that does not read.
const LAST_WORD: Duration = Duration::from_secs(2);
/// A far deadline, for when there is none.
const IDLE: Duration = Duration::from_secs(3600);

struct Connection {
    hub: Arc<Hub>,
    peer: SocketAddr,
    transport: Transport,
    codec: Codec,
    session: Session,
    mailbox: Mailbox,
    inbox: Inbox,
    accepted: Option<Box<Accepted>>,
    actions: Vec<Action>,
    /// While anything waits in it, nothing is read.
    outbox: Outbox,
    /// When what is still to be written is given up, once the session has ended.
    last_word: Option<Instant>,
}

/// A client that has been let in.
struct Accepted {
    id: ConnectionId,
    reporter: Reporter,
}

/// Serves one connection to its end. Answers with what it could not hand over by then.
pub(crate) async fn run(hub: Arc<Hub>, stream: TcpStream, peer: SocketAddr) -> Outbox {
    let (mailbox, inbox) = mailbox::open(hub.limits.outbound_queue);
    let mut connection = Connection {
        peer,
        transport: Transport::new(stream),
        codec: Codec::new(hub.limits.max_packet_size),
        session: Session::new(Arc::clone(&hub.limits), Instant::now()),
        mailbox,
        inbox,
        accepted: None,
        actions: Vec::new(),
        outbox: Outbox::new(Arc::clone(&hub)),
        last_word: None,
        hub,
    };
    // A fault in here ends one connection, and leaves neither its client id nor its agents behind.
    if AssertUnwindSafe(connection.live()).catch_unwind().await.is_err() {
        tracing::error!(%peer, "a connection panicked and is ended");
        connection.session.lost(&mut connection.actions);
        connection.carry_out(Instant::now());
    }
    connection.end().await
}

impl Connection {
    async fn live(&mut self) {
        let drain = self.hub.drain.clone();
        let mut draining = std::pin::pin!(drain.requested());
        let mut drained = false;
        let mut timer = std::pin::pin!(tokio::time::sleep(IDLE));
        while self.step() {
            let (reading, delivering) = (self.is_reading(), self.is_delivering());
            arm(timer.as_mut(), self.deadline());
            tokio::select! {
                ready = self.transport.ready(reading) => match ready {
                    Ok(true) => self.read(),
                    Ok(false) => {}
                    Err(_) => self.session.lost(&mut self.actions),
                },
                received = self.inbox.next(delivering) => match received {
                    Some(Received::Event(event)) => self.events(event),
                    Some(Received::Delivery(delivery)) => self.deliveries(*delivery),
                    None => {}
                },
                () = self.outbox.advance() => {}
                () = timer.as_mut() => self.tick(),
                () = draining.as_mut(), if !drained => {
                    drained = true;
                    self.session.drain(&mut self.actions);
                }
                () = drain.forced() => return,
            }
        }
    }

    /// Decodes what is here, carries out what follows, and writes. False when all is over.
    fn step(&mut self) -> bool {
        let now = Instant::now();
        loop {
            self.decode(now);
            self.carry_out(now);
            let was_full = !self.transport.is_writable();
            if self.transport.flush(now).is_err() {
                self.session.lost(&mut self.actions);
                self.carry_out(now);
                return false;
            }
            self.session.set_writable(self.transport.is_writable(), now, &mut self.actions);
            self.carry_out(now);
            // No event comes for packets that were left because there was no room for answers.
            if !(was_full && self.is_reading() && !self.transport.inbound.is_empty()) {
                break;
            }
        }
        self.transport.release();
        let reading = self.is_reading();
        self.session.set_reading(reading, now);
        !(self.session.is_closed() && self.transport.outbound.is_empty())
    }

    /// Decodes packets as long as the session and the publishers take them.
    fn decode(&mut self, now: Instant) {
        while self.is_reading() && !self.transport.inbound.is_empty() {
            match self.codec.decode(&mut self.transport.inbound) {
                Ok(Some(packet)) => {
                    self.session.packet(packet, now, &mut self.actions);
                    self.carry_out(now);
                }
                Ok(None) => return,
                Err(fault) => return self.fault(&fault),
            }
        }
    }

    fn fault(&mut self, fault: &Fault) {
        if self.session.is_open() && matches!(fault, Fault::TooLarge { .. }) {
            self.refuse_oversized(fault);
        }
        self.session.fault(fault, self.codec.version(), &mut self.actions);
    }

    fn is_reading(&self) -> bool {
        // A client that does not take our answers is not asked for more questions.
        self.outbox.is_empty() && self.transport.is_writable() && self.session.may_read()
    }

    fn read(&mut self) {
        match self.transport.read() {
            Ok(true) => {}
            Ok(false) | Err(_) => self.session.lost(&mut self.actions),
        }
    }

    /// Whether the session takes messages for its subscriptions: while one of them waits for its
    /// window, the others wait in the mailbox, which is where they are bounded.
    fn is_delivering(&self) -> bool {
        self.session.is_open() && self.transport.is_writable() && self.session.queued() == 0
    }

    fn events(&mut self, first: Event) {
        let now = Instant::now();
        self.event(first, now);
        for _ in 1..EVENTS_AT_ONCE {
            let Some(event) = self.inbox.try_next() else { return };
            self.carry_out(now);
            self.event(event, now);
        }
    }

    fn deliveries(&mut self, first: Delivery) {
        let now = Instant::now();
        self.session.deliver(first, now, &mut self.actions);
        self.carry_out(now);
        for _ in 1..EVENTS_AT_ONCE {
            if !self.is_delivering() {
                return;
            }
            let Some(delivery) = self.inbox.try_delivery() else { return };
            self.session.deliver(*delivery, now, &mut self.actions);
            self.carry_out(now);
        }
    }

    fn event(&mut self, event: Event, now: Instant) {
        let actions = &mut self.actions;
        match event {
            Event::Checked(checked) => self.checked(*checked, now),
            Event::Receipt(ticket, receipt) => self.session.receipt(ticket, receipt, actions),
            Event::Subscribed(id, reasons) => self.session.subscribed(id, &reasons, actions),
            Event::Unsubscribed(id, reasons) => self.session.unsubscribed(id, &reasons, actions),
            Event::TakenOver => {
                self.hub.metrics.taken_over.inc();
                self.session.taken_over(actions);
            }
            Event::Renew(session) => self.renew(session),
            Event::Overflow => {
                let told = Told::new(Reason::QUOTA_EXCEEDED, "this subscriber reads too slowly");
                self.session.evict(told, actions);
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let writing = [self.transport.write_deadline(), self.last_word];
        if writing.into_iter().flatten().any(|deadline| deadline <= now) {
            self.transport.outbound.clear();
            self.session.lost(&mut self.actions);
        }
        self.session.tick(now, &mut self.actions);
    }

    fn deadline(&self) -> Instant {
        let writing = [self.transport.write_deadline(), self.last_word];
        let soonest = writing.into_iter().chain([self.session.next_deadline()]).flatten().min();
        soonest.unwrap_or_else(|| Instant::now() + IDLE)
    }

    /// Carries out what the session has decided, in order.
    fn carry_out(&mut self, now: Instant) {
        // What is carried out may lead to more, which comes after.
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                self.act(action, now);
            }
        }
    }

    fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Send(packet) => {
                if let Err(error) = self.codec.encode(&packet, &mut self.transport.outbound) {
                    tracing::error!(peer = %self.peer, "a packet could not be encoded: {error}");
                    self.session.lost(&mut self.actions);
                }
            }
            Action::Authenticate(connect) => self.authenticate(connect),
            Action::Publish { ticket, publish } => self.publish(ticket, &publish),
            Action::Subscribe { packet_id, wanted } => self.subscribe(packet_id, wanted),
            Action::Unsubscribe { packet_id, filters } => self.unsubscribe(packet_id, &filters),
            Action::Acknowledged(command) => self.acknowledged(&command),
            Action::Dropped { why: Dropped::Closed | Dropped::Expired, .. } => {}
            Action::Dropped { why: Dropped::QueueFull | Dropped::TooLarge, count } => {
                self.hub.metrics.missed.inc_by(count as u64);
            }
            Action::Close(close) => {
                self.last_word = Some(now + LAST_WORD);
                self.depart(&close);
            }
        }
    }
}

/// Moves a timer, unless it fires in time anyway: deadlines mostly move away with each packet.
fn arm(timer: Pin<&mut Sleep>, deadline: Instant) {
    let deadline = tokio::time::Instant::from_std(deadline);
    if timer.is_elapsed() || deadline < timer.deadline() {
        timer.reset(deadline);
    }
}
