//! What waits, what is on its way, and what is next: pure, with the time as an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::lane::{Lane, Outgoing};
use super::pending::{LaneState, Place, State};

/// RabbitMQ closes the channel at a message as soon as it has read it: after so long, it has not.
const PASSED_AFTER: Duration = Duration::from_secs(5);

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
    /// Between a parcel at which RabbitMQ closed the channel and the next attempt with one at which
    /// it did before, whatever their lanes.
    pub(crate) between_culprits: Duration,
}

/// Names one parcel on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket {
    pub(super) lane: u64,
    pub(super) flight: u64,
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
    /// Whether its lane had none before.
    pub(crate) is_new: bool,
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
    /// Lanes with something to send now.
    ready: BTreeMap<Place, u64>,
    /// Lanes that wait before they try again.
    held: BTreeSet<(Instant, u64)>,
    next: u64,
    in_flight: usize,
    /// What was sent last, until RabbitMQ is past it, and so, since it takes messages in order, past
    /// all that was sent before.
    last: Option<Last>,
    /// The youngest line's number when the channel was opened.
    opened_at: Option<u64>,
    /// Lanes with a parcel at which RabbitMQ closes the channel.
    culprits: usize,
    /// When one of them may be tried again.
    next_attempt: Option<Instant>,
    /// The room that lanes take which are held up.
    held_up: usize,
    /// Lanes that began to be held up, or no longer are.
    turned: Vec<(Lane, bool)>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    ticket: Ticket,
    at: Instant,
    /// Whether it is a suspect, with which nothing else is sent.
    on_trial: bool,
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
            last: None,
            opened_at: None,
            culprits: 0,
            next_attempt: None,
            held_up: 0,
            turned: Vec::new(),
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

    /// When there may be more to send although nothing happens.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let held = self.held.first().map(|(until, _)| *until);
        let waits_for = match self.last {
            Some(last) => Some(last.at + PASSED_AFTER),
            None if self.is_full() => None,
            None => self.first_suspect().and_then(|(place, _)| self.not_before(place)),
        };
        [held, waits_for].into_iter().flatten().min()
    }

    /// The room that lanes take which RabbitMQ refuses, or closes the channel at.
    pub(crate) fn held_up(&self) -> usize {
        self.held_up
    }

    /// Which lanes began to be held up (true) since this was asked last, and which no longer are.
    pub(crate) fn turned(&mut self) -> impl ExactSizeIterator<Item = (Lane, bool)> {
        self.turned.drain(..)
    }

    /// Adds a line at the end of its lane.
    pub(crate) fn push(&mut self, outgoing: Outgoing<R>) {
        let sequence = self.number();
        let number = match self.names.get(&outgoing.lane) {
            Some(number) => *number,
            None => self.open(outgoing.lane.clone()),
        };
        let Some(state) = self.lanes.get_mut(&number) else { return };
        if state.push(sequence, outgoing, &self.limits) || state.counted.is_some() {
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

    /// The next parcel: of the lanes that may send, the one whose oldest line is oldest. Once all
    /// that was there when the channel was opened is on its way, suspects go: each when RabbitMQ is
    /// past everything before it, and nothing else until RabbitMQ is past it, too.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Parcel> {
        self.release(now);
        if let Some(last) = self.last
            && last.at + PASSED_AFTER <= now
        {
            self.pass(last.ticket);
        }
        if self.is_full() || self.last.is_some_and(|last| last.on_trial) {
            return None;
        }
        let (number, on_trial) = self.choose(now)?;
        let flight = self.number();
        let parcel = self.lanes.get_mut(&number)?.take(number, flight, &self.limits)?;
        self.last = Some(Last { ticket: parcel.ticket, at: now, on_trial });
        self.in_flight += 1;
        self.list(number);
        Some(parcel)
    }

    fn is_full(&self) -> bool {
        self.in_flight >= self.limits.in_flight
    }

    /// The lane whose turn it is, and whether what it sends goes on trial.
    fn choose(&mut self, now: Instant) -> Option<(u64, bool)> {
        let opened_at = *self.opened_at.get_or_insert(self.next);
        let due = |place| self.not_before(place).is_none_or(|time| time <= now);
        let suspect = self.first_suspect().filter(|(place, _)| due(*place));
        if let Some((Place::Healthy(age), number)) = self.ready.first_key_value()
            && (suspect.is_none() || *age <= opened_at)
        {
            return Some((*number, false));
        }
        suspect.filter(|_| self.last.is_none()).map(|(_, number)| (number, true))
    }

    fn first_suspect(&self) -> Option<(Place, u64)> {
        let (place, number) = self.ready.range(Place::Suspect(0)..).next()?;
        Some((*place, *number))
    }

    fn not_before(&self, place: Place) -> Option<Instant> {
        self.next_attempt.filter(|_| matches!(place, Place::Culprit(_)))
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
        let Some(state) = self.land(ticket, State::Confirmed) else { return settled };
        if !state.culprit {
            state.retry = None;
        }
        state.settle(&mut settled);
        self.list(ticket.lane);
        self.close_if_empty(ticket.lane);
        settled
    }

    /// Notes that RabbitMQ refused a parcel. Its lane waits, then tries the same parcel again.
    pub(crate) fn refused(&mut self, ticket: Ticket, now: Instant) {
        let refused = self.waits.refused;
        let Some(state) = self.land(ticket, State::ToSend) else { return };
        state.retry.get_or_insert_with(|| refused.build());
        self.hold(ticket.lane, now);
    }

    /// Notes the answer to a parcel; its lane, if it was on its way.
    fn land(&mut self, ticket: Ticket, to: State) -> Option<&mut LaneState<R>> {
        let landed = self.lanes.get_mut(&ticket.lane)?.land(ticket.flight, to);
        if !landed {
            return None;
        }
        self.in_flight -= 1;
        self.pass(ticket);
        self.lanes.get_mut(&ticket.lane)
    }

    /// Notes that RabbitMQ has not closed the channel at a parcel, whatever becomes of it.
    fn pass(&mut self, ticket: Ticket) {
        self.last = self.last.filter(|last| last.ticket != ticket);
        if let Some(state) = self.lanes.get_mut(&ticket.lane) {
            self.culprits -= usize::from(state.acquit(ticket.flight));
        }
        self.list(ticket.lane);
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
    /// or that the user may not publish. What was on trial is suspected, else whatever was on its
    /// way, and goes alone from now on. If it was one parcel and the error is about a message
    /// (`proven`), it is the culprit: its lane waits longer and longer, and it is named.
    pub(crate) fn closed(&mut self, proven: bool, now: Instant) -> Option<Culprit> {
        let suspects = self.suspects();
        for ticket in &suspects {
            let turn = self.number();
            if let Some(state) = self.lanes.get_mut(&ticket.lane) {
                state.suspect(ticket.flight, turn);
            }
        }
        self.lost();
        match suspects.as_slice() {
            [ticket] if proven => self.convict(*ticket, now),
            _ => None,
        }
    }

    /// At what RabbitMQ may have closed the channel, oldest first.
    fn suspects(&self) -> Vec<Ticket> {
        if let Some(last) = self.last.filter(|last| last.on_trial) {
            return vec![last.ticket];
        }
        let mut sent = Vec::with_capacity(self.in_flight);
        for (lane, state) in &self.lanes {
            let flights = state.on_the_way();
            sent.extend(flights.map(|(age, flight)| (age, Ticket { lane: *lane, flight })));
        }
        sent.sort_unstable();
        sent.into_iter().map(|(_, ticket)| ticket).collect()
    }

    fn convict(&mut self, ticket: Ticket, now: Instant) -> Option<Culprit> {
        let state = self.lanes.get_mut(&ticket.lane)?;
        let is_new = !mem::replace(&mut state.culprit, true);
        if is_new {
            state.retry = Some(self.waits.culprit.build());
            self.culprits += 1;
        }
        let culprit = state.culprit(ticket.flight, is_new);
        self.next_attempt = Some(now + self.waits.between_culprits);
        self.hold(ticket.lane, now);
        culprit
    }

    /// Notes that the connection is gone: what was on its way is to be sent again, in order.
    pub(crate) fn lost(&mut self) {
        self.in_flight = 0;
        self.last = None;
        self.opened_at = None;
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

    /// Puts the lane where it belongs in `ready`, and counts it if it is held up.
    fn list(&mut self, number: u64) {
        let Some(state) = self.lanes.get_mut(&number) else { return };
        let (was, is) = (state.counted, state.held_up());
        if was != is {
            state.counted = is;
            self.held_up = self.held_up + is.unwrap_or_default() - was.unwrap_or_default();
            if was.is_some() != is.is_some() {
                self.turned.push((state.lane.clone(), is.is_some()));
            }
        }
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

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
