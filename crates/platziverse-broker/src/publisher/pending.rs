//! The lines of one lane: those that wait, and those that are sent, in order.

use std::collections::VecDeque;
use std::mem;

use backon::ExponentialBackoff;
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;
use uuid::Uuid;

use super::gather::{Culprit, Limits, Parcel, Settled, Ticket};
use super::lane::{Lane, Outgoing};

/// What an entry costs beside its line: its own fields, and small change of the allocator.
pub(super) const ENTRY_OVERHEAD: usize = 128;

/// Where a lane stands among those with something to send: by what it sends next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// By the age of the line.
    Healthy(u64),
    /// A suspect, by how long ago it became one.
    Suspect(u64),
    /// A parcel at which RabbitMQ closes the channel, by how long ago it did.
    Culprit(u64),
}

#[derive(Debug)]
pub(super) struct LaneState<R> {
    pub(super) lane: Lane,
    waiting: VecDeque<Entry<R>>,
    waiting_bytes: usize,
    flights: VecDeque<Flight<R>>,
    /// Lines in flights.
    flying: usize,
    /// Flights that await a confirm.
    sent: usize,
    /// The room that all its lines take.
    cost: usize,
    /// There since RabbitMQ refused a flight or closed the channel at one, until it takes one.
    pub(super) retry: Option<ExponentialBackoff>,
    /// Whether there is a flight at which RabbitMQ closes the channel.
    pub(super) culprit: bool,
    pub(super) held_until: Option<Instant>,
    /// The key under which the lane is in `ready`.
    pub(super) listed: Option<Place>,
    /// What it counts for in the room that lanes take which are held up; none if it is not.
    pub(super) counted: Option<usize>,
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
    /// There if RabbitMQ may have closed the channel at it: the later it did, the greater.
    suspect: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    ToSend,
    Sent,
    Confirmed,
}

/// The room that a line takes: all of it if it is larger than that.
pub(super) fn cost(line: &Bytes, capacity: usize) -> usize {
    (line.len() + ENTRY_OVERHEAD).min(capacity)
}

impl<R> LaneState<R> {
    pub(super) fn new(lane: Lane) -> Self {
        Self {
            lane,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            flights: VecDeque::new(),
            flying: 0,
            sent: 0,
            cost: 0,
            retry: None,
            culprit: false,
            held_until: None,
            listed: None,
            counted: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.flights.is_empty()
    }

    /// Adds a line; whether there may be something to send now.
    pub(super) fn push(&mut self, sequence: u64, outgoing: Outgoing<R>, limits: &Limits) -> bool {
        let Outgoing { id, line, receipt, .. } = outgoing;
        self.cost += cost(&line, limits.capacity);
        self.waiting_bytes += line.len();
        self.waiting.push_back(Entry { sequence, id, line, receipt });
        self.is_worth_a_parcel(limits)
    }

    /// Whether what waits makes a full parcel, or at least half as many lines as are on their way.
    /// A single line behind many would cost RabbitMQ as much as they do, a write to disk included;
    /// once they are confirmed it goes with those that follow them.
    fn is_worth_a_parcel(&self, limits: &Limits) -> bool {
        self.lane.is_alone()
            || 2 * self.waiting.len() >= self.flying
            || self.waiting.len() >= limits.batch_records
            || self.waiting_bytes >= limits.batch_bytes
    }

    /// The room that it takes while it is held up; none if it is not. It is until nothing waits: a
    /// queue that is emptied slowly takes a message now and then.
    pub(super) fn held_up(&self) -> Option<usize> {
        let behind = self.counted.is_some() && !self.waiting.is_empty();
        (self.retry.is_some() || behind).then_some(self.cost)
    }

    /// Where it stands with what it may send now.
    pub(super) fn head(&self, limits: &Limits) -> Option<Place> {
        // A lane that RabbitMQ did not take all of feels its way with one parcel.
        let window = if self.retry.is_some() { 1 } else { limits.window };
        if self.held_until.is_some() || self.sent >= window {
            return None;
        }
        if let Some(flight) = self.flights.iter().find(|flight| flight.state == State::ToSend) {
            return Some(match flight.suspect {
                None => Place::Healthy(flight.sequence),
                Some(turn) if self.culprit => Place::Culprit(turn),
                Some(turn) => Place::Suspect(turn),
            });
        }
        // Confirmed flights behind an unconfirmed one count: they hold memory.
        let sends = self.flights.len() < limits.window && self.is_worth_a_parcel(limits);
        self.waiting.front().filter(|_| sends).map(|entry| Place::Healthy(entry.sequence))
    }

    pub(super) fn take(&mut self, lane: u64, number: u64, limits: &Limits) -> Option<Parcel> {
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
        self.waiting_bytes -= bytes;
        self.flying += count;
        let receipts = self.waiting.drain(..count).map(|entry| entry.receipt).collect();
        let (cost, state) = (total, State::ToSend);
        Some(Flight { number, sequence, id, body, receipts, cost, state, suspect: None })
    }

    fn join(&self, count: usize, bytes: usize) -> Bytes {
        let mut body = BytesMut::with_capacity(bytes);
        for entry in self.waiting.iter().take(count) {
            body.extend_from_slice(&entry.line);
        }
        body.freeze()
    }

    /// Notes the answer for a flight; false if there is no such flight on its way.
    pub(super) fn land(&mut self, number: u64, state: State) -> bool {
        let on_its_way =
            |flight: &&mut Flight<R>| flight.number == number && flight.state == State::Sent;
        let Some(flight) = self.flights.iter_mut().find(on_its_way) else { return false };
        flight.state = state;
        self.sent -= 1;
        true
    }

    pub(super) fn settle(&mut self, settled: &mut Settled<R>) {
        while let Some(flight) = self.flights.pop_front_if(|f| f.state == State::Confirmed) {
            settled.cost += flight.cost;
            self.cost -= flight.cost;
            self.flying -= flight.receipts.len();
            settled.receipts.extend(flight.receipts);
        }
    }

    /// What is on its way: the age of each parcel, and its number.
    pub(super) fn on_the_way(&self) -> impl Iterator<Item = (u64, u64)> {
        let sent = self.flights.iter().filter(|flight| flight.state == State::Sent);
        sent.map(|flight| (flight.sequence, flight.number))
    }

    /// Names a flight as the culprit that it is.
    pub(super) fn culprit(&self, number: u64, is_new: bool) -> Option<Culprit> {
        let flight = self.flights.iter().find(|flight| flight.number == number)?;
        let (bytes, records) = (flight.body.len(), flight.receipts.len());
        Some(Culprit { lane: self.lane.clone(), id: flight.id, bytes, records, is_new })
    }

    pub(super) fn suspect(&mut self, number: u64, turn: u64) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.number == number) {
            flight.suspect = Some(turn);
        }
    }

    /// Ends the suspicion of a flight; whether it was the culprit.
    pub(super) fn acquit(&mut self, number: u64) -> bool {
        let flight = self.flights.iter_mut().find(|flight| flight.number == number);
        let suspected = flight.is_some_and(|flight| flight.suspect.take().is_some());
        let acquitted = suspected && mem::take(&mut self.culprit);
        if acquitted {
            self.retry = None;
        }
        acquitted
    }

    pub(super) fn recall(&mut self) {
        self.sent = 0;
        for flight in self.flights.iter_mut().filter(|flight| flight.state == State::Sent) {
            flight.state = State::ToSend;
        }
    }

    pub(super) fn give_up(self, capacity: usize, settled: &mut Settled<R>) {
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
