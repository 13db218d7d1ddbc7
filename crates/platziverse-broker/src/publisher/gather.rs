//! What waits, what is on its way, and what is next: pure, with the time as an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::mem;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use uuid::Uuid;

use super::lane::{Lane, Outgoing};

/// What an entry costs beside its line: its own fields, and small change of the allocator.
const ENTRY_OVERHEAD: usize = 128;

/// The bounds of a [`Gather`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Lines in one AMQP message.
    pub(crate) batch_records: usize,
    /// Bytes in one AMQP message of more than one line.
    pub(crate) batch_bytes: usize,
    /// AMQP messages of one lane that await their confirms.
    pub(crate) window: usize,
    /// AMQP messages of all lanes that await their confirms.
    pub(crate) in_flight: usize,
    /// All the room that lines may take.
    pub(crate) capacity: usize,
}

/// How long lanes wait before they try again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// After a refusal.
    pub(crate) refused: ExponentialBuilder,
    /// After a parcel at which RabbitMQ closed the channel.
    pub(crate) culprit: ExponentialBuilder,
}

/// Names one parcel on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket {
    lane: u64,
    flight: u64,
}

/// One AMQP message to send.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) ticket: Ticket,
    pub(crate) lane: Lane,
    pub(crate) id: Uuid,
    pub(crate) body: Bytes,
    pub(crate) records: usize,
}

/// A parcel at which RabbitMQ closes the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Culprit {
    pub(crate) lane: Lane,
    pub(crate) id: Uuid,
    pub(crate) bytes: usize,
    pub(crate) records: usize,
}

/// Lines whose outcome is known, in the order of publishing.
#[derive(Debug)]
pub(crate) struct Settled<R> {
    pub(crate) receipts: Vec<R>,
    /// The room that they took.
    pub(crate) cost: usize,
}

impl<R> Default for Settled<R> {
    fn default() -> Self {
        Self { receipts: Vec::new(), cost: 0 }
    }
}

/// Lanes of lines. Each line is in it until its outcome is known.
#[derive(Debug)]
pub(crate) struct Gather<R> {
    limits: Limits,
    waits: Waits,
    names: HashMap<Lane, u64>,
    lanes: HashMap<u64, LaneState<R>>,
    /// Lanes with something to send now, by the age of its oldest line.
    ready: BTreeMap<u64, u64>,
    /// Lanes that wait before they try again.
    held: BTreeSet<(Instant, u64)>,
    next: u64,
    in_flight: usize,
    /// Whether what is on its way is a suspect, which goes alone.
    on_trial: bool,
    /// Lanes whose oldest parcel is one at which RabbitMQ closes the channel.
    culprits: usize,
}

#[derive(Debug)]
struct LaneState<R> {
    lane: Lane,
    waiting: VecDeque<Entry<R>>,
    flights: VecDeque<Flight<R>>,
    /// Flights that await a confirm.
    sent: usize,
    /// There since RabbitMQ refused a flight, until it takes one.
    retry: Option<ExponentialBackoff>,
    /// Whether RabbitMQ closes the channel at the first flight that is to be sent.
    culprit: bool,
    held_until: Option<Instant>,
    /// The key under which the lane is in `ready`.
    listed: Option<u64>,
}

#[derive(Debug)]
struct Entry<R> {
    sequence: u64,
    id: Uuid,
    line: Bytes,
    receipt: R,
}

#[derive(Debug)]
struct Flight<R> {
    number: u64,
    sequence: u64,
    id: Uuid,
    body: Bytes,
    receipts: Vec<R>,
    cost: usize,
    state: State,
    /// Whether it was on its way when RabbitMQ closed the channel.
    suspect: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ToSend,
    Sent,
    Confirmed,
}

/// The room that a line takes: all of it if it is larger than that.
pub(crate) fn cost(line: &Bytes, capacity: usize) -> usize {
    (line.len() + ENTRY_OVERHEAD).min(capacity)
}

impl<R> Gather<R> {
    pub(crate) fn new(limits: Limits, waits: Waits) -> Self {
        Self {
            limits,
            waits,
            names: HashMap::new(),
            lanes: HashMap::new(),
            ready: BTreeMap::new(),
            held: BTreeSet::new(),
            next: 0,
            in_flight: 0,
            on_trial: false,
            culprits: 0,
        }
    }

    /// Whether nothing waits and nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether there is a parcel at which RabbitMQ closes the channel.
    pub(crate) fn has_culprits(&self) -> bool {
        self.culprits > 0
    }

    /// When a held lane may try again.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        self.held.first().map(|(until, _)| *until)
    }

    /// Adds a line at the end of its lane.
    pub(crate) fn push(&mut self, outgoing: Outgoing<R>) {
        let Outgoing { lane, id, line, receipt } = outgoing;
        let sequence = self.number();
        let number = match self.names.get(&lane) {
            Some(number) => *number,
            None => self.open(lane),
        };
        let Some(state) = self.lanes.get_mut(&number) else { return };
        let first = state.waiting.is_empty();
        state.waiting.push_back(Entry { sequence, id, line, receipt });
        if first {
            self.list(number);
        }
    }

    fn open(&mut self, lane: Lane) -> u64 {
        let number = self.number();
        self.names.insert(lane.clone(), number);
        self.lanes.insert(number, LaneState::new(lane));
        number
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The next parcel: of the lanes that may send, the one whose oldest line is oldest. A suspect
    /// waits until nothing is on its way, and then nothing else goes until it is answered.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Parcel> {
        self.release(now);
        if self.on_trial || self.in_flight >= self.limits.in_flight {
            return None;
        }
        let (_, number) = self.ready.first_key_value()?;
        let number = *number;
        let flight = self.number();
        let state = self.lanes.get_mut(&number)?;
        let next = state.flights.iter().find(|flight| flight.state == State::ToSend);
        let suspect = next.is_some_and(|flight| flight.suspect);
        if suspect && self.in_flight > 0 {
            return None;
        }
        self.on_trial = suspect;
        let parcel = state.take(number, flight, &self.limits)?;
        self.in_flight += 1;
        self.list(number);
        Some(parcel)
    }

    fn release(&mut self, now: Instant) {
        while let Some((until, number)) = self.held.first().copied()
            && until <= now
        {
            self.held.pop_first();
            if let Some(state) = self.lanes.get_mut(&number) {
                state.held_until = None;
            }
            self.list(number);
        }
    }

    /// Notes that RabbitMQ has a parcel. Its lines are settled unless earlier ones of its lane are
    /// not.
    pub(crate) fn confirmed(&mut self, ticket: Ticket) -> Settled<R> {
        let mut settled = Settled::default();
        let Some(state) = self.lanes.get_mut(&ticket.lane) else { return settled };
        if !state.land(ticket.flight, State::Confirmed) {
            return settled;
        }
        state.retry = None;
        self.culprits -= usize::from(mem::take(&mut state.culprit));
        state.settle(&mut settled);
        self.in_flight -= 1;
        self.on_trial = false;
        self.list(ticket.lane);
        self.close_if_empty(ticket.lane);
        settled
    }

    /// Notes that RabbitMQ refused a parcel. Its lane waits, then tries the same parcel again.
    pub(crate) fn refused(&mut self, ticket: Ticket, now: Instant) {
        let Some(state) = self.lanes.get_mut(&ticket.lane) else { return };
        if !state.land(ticket.flight, State::ToSend) {
            return;
        }
        self.in_flight -= 1;
        self.on_trial = false;
        state.retry.get_or_insert_with(|| self.waits.refused.build());
        self.hold(ticket.lane, now);
    }

    /// Has a lane wait, unless it waits already.
    fn hold(&mut self, number: u64, now: Instant) {
        if let Some(state) = self.lanes.get_mut(&number)
            && state.held_until.is_none()
        {
            let until = now + state.retry.as_mut().and_then(Iterator::next).unwrap_or_default();
            state.held_until = Some(until);
            self.held.insert((until, number));
        }
        self.list(number);
    }

    /// Notes that RabbitMQ has closed the channel, as it does at a message that is too large for it
    /// or that the user may not publish. Whatever was on its way is suspected, and goes alone from
    /// now on. If it was one parcel and the error is about a message (`proven`), it is the culprit:
    /// its lane waits longer and longer, and it is named.
    pub(crate) fn closed(&mut self, proven: bool, now: Instant) -> Option<Culprit> {
        let mut on_its_way = Vec::new();
        for (number, state) in &mut self.lanes {
            on_its_way.extend(state.suspect().map(|culprit| (*number, culprit)));
        }
        self.lost();
        match <[_; 1]>::try_from(on_its_way) {
            Ok([(number, culprit)]) if proven => {
                self.convict(number, now);
                Some(culprit)
            }
            _ => None,
        }
    }

    fn convict(&mut self, number: u64, now: Instant) {
        let Some(state) = self.lanes.get_mut(&number) else { return };
        if !mem::replace(&mut state.culprit, true) {
            state.retry = Some(self.waits.culprit.build());
            self.culprits += 1;
        }
        self.hold(number, now);
    }

    /// Notes that the connection is gone: what was on its way is to be sent again, in order.
    pub(crate) fn lost(&mut self) {
        self.in_flight = 0;
        self.on_trial = false;
        let numbers: Vec<u64> = self.lanes.keys().copied().collect();
        for number in numbers {
            if let Some(state) = self.lanes.get_mut(&number) {
                state.recall();
            }
            self.list(number);
        }
    }

    /// Gives up everything, lane by lane.
    pub(crate) fn abandon(&mut self) -> Settled<R> {
        let mut settled = Settled::default();
        for state in mem::take(&mut self.lanes).into_values() {
            state.give_up(self.limits.capacity, &mut settled);
        }
        *self = Self::new(self.limits, self.waits);
        settled
    }

    fn close_if_empty(&mut self, number: u64) {
        let empty = self.lanes.get(&number).is_some_and(LaneState::is_empty);
        if empty && let Some(state) = self.lanes.remove(&number) {
            self.names.remove(&state.lane);
            if let Some(until) = state.held_until {
                self.held.remove(&(until, number));
            }
        }
    }

    /// Puts the lane where it belongs in `ready`.
    fn list(&mut self, number: u64) {
        let Some(state) = self.lanes.get_mut(&number) else { return };
        let head = state.head(&self.limits);
        if head == state.listed {
            return;
        }
        if let Some(old) = mem::replace(&mut state.listed, head) {
            self.ready.remove(&old);
        }
        if let Some(head) = head {
            self.ready.insert(head, number);
        }
    }
}

impl<R> LaneState<R> {
    fn new(lane: Lane) -> Self {
        Self {
            lane,
            waiting: VecDeque::new(),
            flights: VecDeque::new(),
            sent: 0,
            retry: None,
            culprit: false,
            held_until: None,
            listed: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty()
    }

    /// The age of the oldest line that may be sent now.
    fn head(&self, limits: &Limits) -> Option<u64> {
        // A lane that was refused feels its way with one parcel.
        let window = if self.retry.is_some() { 1 } else { limits.window };
        if self.held_until.is_some() || self.sent >= window {
            return None;
        }
        if let Some(flight) = self.flights.iter().find(|flight| flight.state == State::ToSend) {
            return Some(flight.sequence);
        }
        // Confirmed flights behind an unconfirmed one count: they hold memory.
        let room = self.flights.len() < limits.window;
        self.waiting.front().filter(|_| room).map(|entry| entry.sequence)
    }

    fn take(&mut self, lane: u64, number: u64, limits: &Limits) -> Option<Parcel> {
        let at = match self.flights.iter().position(|flight| flight.state == State::ToSend) {
            Some(at) => at,
            None => {
                let flight = self.gather(number, limits)?;
                self.flights.push_back(flight);
                self.flights.len() - 1
            }
        };
        let flight = self.flights.get_mut(at)?;
        flight.state = State::Sent;
        self.sent += 1;
        Some(Parcel {
            ticket: Ticket { lane, flight: flight.number },
            lane: self.lane.clone(),
            id: flight.id,
            body: flight.body.clone(),
            records: flight.receipts.len(),
        })
    }

    /// Makes one parcel of the oldest waiting lines.
    fn gather(&mut self, number: u64, limits: &Limits) -> Option<Flight<R>> {
        let most = if self.lane.is_alone() { 1 } else { limits.batch_records.max(1) };
        let (mut count, mut bytes, mut total) = (0, 0, 0);
        for entry in self.waiting.iter().take(most) {
            if count > 0 && bytes + entry.line.len() > limits.batch_bytes {
                break;
            }
            count += 1;
            bytes += entry.line.len();
            total += cost(&entry.line, limits.capacity);
        }
        let first = self.waiting.front()?;
        let (sequence, id) = (first.sequence, first.id);
        let body = if count == 1 { first.line.clone() } else { self.join(count, bytes) };
        let receipts = self.waiting.drain(..count).map(|entry| entry.receipt).collect();
        let (cost, state) = (total, State::ToSend);
        Some(Flight { number, sequence, id, body, receipts, cost, state, suspect: false })
    }

    fn join(&self, count: usize, bytes: usize) -> Bytes {
        let mut body = BytesMut::with_capacity(bytes);
        for entry in self.waiting.iter().take(count) {
            body.extend_from_slice(&entry.line);
        }
        body.freeze()
    }

    /// Notes the answer for a flight; false if there is no such flight on its way.
    fn land(&mut self, number: u64, state: State) -> bool {
        let on_its_way =
            |flight: &&mut Flight<R>| flight.number == number && flight.state == State::Sent;
        let Some(flight) = self.flights.iter_mut().find(on_its_way) else { return false };
        flight.state = state;
        self.sent -= 1;
        true
    }

    fn settle(&mut self, settled: &mut Settled<R>) {
        while let Some(flight) = self.flights.pop_front_if(|f| f.state == State::Confirmed) {
            settled.cost += flight.cost;
            settled.receipts.extend(flight.receipts);
        }
    }

    /// Suspects what is on its way.
    fn suspect(&mut self) -> impl Iterator<Item = Culprit> {
        let lane = &self.lane;
        let sent = self.flights.iter_mut().filter(|flight| flight.state == State::Sent);
        sent.map(|flight| {
            flight.suspect = true;
            let (bytes, records) = (flight.body.len(), flight.receipts.len());
            Culprit { lane: lane.clone(), id: flight.id, bytes, records }
        })
    }

    fn recall(&mut self) {
        self.sent = 0;
        for flight in self.flights.iter_mut().filter(|flight| flight.state == State::Sent) {
            flight.state = State::ToSend;
        }
    }

    fn give_up(self, capacity: usize, settled: &mut Settled<R>) {
        for flight in self.flights {
            settled.cost += flight.cost;
            settled.receipts.extend(flight.receipts);
        }
        for entry in self.waiting {
            settled.cost += cost(&entry.line, capacity);
            settled.receipts.push(entry.receipt);
        }
    }
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
