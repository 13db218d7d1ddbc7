use proptest::prelude::*;

use super::super::pending::ENTRY_OVERHEAD;
use super::*;

const LIMITS: Limits =
    Limits { batch_records: 3, batch_bytes: 40, window: 2, in_flight: 5, capacity: 1_000_000 };

fn gather(limits: Limits) -> Gather<u32> {
    let from = |millis| {
        ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(millis))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
    };
    let between_culprits = Duration::from_secs(3);
    Gather::new(limits, Waits { refused: from(50), culprit: from(1_000), between_culprits })
}

fn lane(name: &str) -> Lane {
    Lane::new("x", name, "test")
}

fn push(gather: &mut Gather<u32>, lane: &Lane, number: u32) {
    let (lane, id) = (lane.clone(), Uuid::from_u128(number.into()));
    let line = Bytes::from(format!("line {number:04}\n"));
    gather.push(Outgoing { lane, id, line, receipt: number });
}

fn body(parcel: &Parcel) -> String {
    String::from_utf8(parcel.body.to_vec()).unwrap()
}

#[test]
fn lines_gather_while_the_window_is_full() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    let lane = lane("a");
    push(&mut gather, &lane, 1);
    let first = gather.take(now).unwrap();
    assert_eq!((body(&first).as_str(), first.records), ("line 0001\n", 1));
    push(&mut gather, &lane, 2);
    let second = gather.take(now).unwrap();
    for number in 3..8 {
        push(&mut gather, &lane, number);
    }
    assert!(gather.take(now).is_none());
    assert_eq!(gather.confirmed(first.ticket).receipts, [1]);
    let third = gather.take(now).unwrap();
    assert_eq!(body(&third), "line 0003\nline 0004\nline 0005\n");
    assert_eq!(third.id, Uuid::from_u128(3));
    assert_eq!(gather.confirmed(second.ticket).receipts, [2]);
}

#[test]
fn few_lines_wait_behind_many_on_their_way() {
    let limits = Limits { batch_records: 8, batch_bytes: 1_000, window: 4, ..LIMITS };
    let (mut gather, now) = (gather(limits), Instant::now());
    let lane = lane("a");
    for number in 0..6 {
        push(&mut gather, &lane, number);
    }
    let many = gather.take(now).unwrap();
    assert_eq!(many.records, 6);
    for number in 6..8 {
        push(&mut gather, &lane, number);
        assert!(gather.take(now).is_none(), "less than half of what is on its way");
    }
    push(&mut gather, &lane, 8);
    let half = gather.take(now).unwrap();
    assert_eq!(half.records, 3);
    push(&mut gather, &lane, 9);
    assert!(gather.take(now).is_none());
    // What comes next need not wait for all of it.
    gather.confirmed(many.ticket);
    push(&mut gather, &lane, 10);
    assert_eq!(gather.take(now).unwrap().records, 2);
}

#[test]
fn a_full_parcel_waits_for_nothing() {
    let full_of_bytes = Limits { batch_records: 100, batch_bytes: 40, window: 9, ..LIMITS };
    let full_of_records = Limits { batch_records: 4, batch_bytes: 1_000, window: 9, ..LIMITS };
    for limits in [full_of_bytes, full_of_records] {
        let (mut gather, now) = (gather(limits), Instant::now());
        for number in 0..15 {
            push(&mut gather, &lane("a"), number);
        }
        let sent: Vec<_> = std::iter::from_fn(|| gather.take(now)).map(|p| p.records).collect();
        assert_eq!(sent, [4, 4, 4], "and the last three are less than half of twelve");
    }
}

#[test]
fn a_batch_is_bounded_in_bytes_and_a_long_line_goes_alone() {
    let (mut gather, now) = (gather(Limits { batch_records: 100, ..LIMITS }), Instant::now());
    let lane = lane("a");
    for number in 0..5 {
        push(&mut gather, &lane, number);
    }
    assert_eq!(gather.take(now).unwrap().records, 4);
    let line = Bytes::from(vec![b'x'; 100]);
    gather.push(Outgoing { lane: lane.clone(), id: Uuid::nil(), line, receipt: 5 });
    assert_eq!(gather.take(now).unwrap().records, 1);
    gather.lost();
    assert_eq!(gather.take(now).unwrap().records, 4);
    assert_eq!(gather.take(now).unwrap().records, 1);
    assert!(gather.take(now).is_none());
}

#[test]
fn the_lane_with_the_oldest_line_is_next() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    for (number, name) in [(1, "b"), (2, "a"), (3, "b"), (4, "c")] {
        push(&mut gather, &lane(name), number);
    }
    let order: Vec<_> = std::iter::from_fn(|| gather.take(now)).map(|p| body(&p)).collect();
    assert_eq!(order, ["line 0001\nline 0003\n", "line 0002\n", "line 0004\n"]);
}

#[test]
fn lines_that_go_alone_do_not_gather() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    let lane = lane("a").alone();
    push(&mut gather, &lane, 1);
    push(&mut gather, &lane, 2);
    assert_eq!(gather.take(now).unwrap().records, 1);
    assert_eq!(gather.take(now).unwrap().records, 1);
}

#[test]
fn a_refusal_holds_its_lane_only() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    let (a, b) = (lane("a"), lane("b"));
    push(&mut gather, &a, 1);
    let refused = gather.take(now).unwrap();
    gather.refused(refused.ticket, now);
    push(&mut gather, &a, 2);
    push(&mut gather, &b, 3);
    assert_eq!(body(&gather.take(now).unwrap()), "line 0003\n");
    assert!(gather.take(now).is_none());

    let later = gather.next_wake().unwrap();
    assert_eq!((later - now).as_millis(), 50);
    let again = gather.take(later).unwrap();
    assert_eq!((again.id, again.body.clone()), (refused.id, refused.body));
    assert!(gather.take(later).is_none(), "one parcel feels the way");
    gather.refused(again.ticket, later);
    assert_eq!((gather.next_wake().unwrap() - later).as_millis(), 100);

    let much_later = later + Duration::from_secs(1);
    let again = gather.take(much_later).unwrap();
    assert_eq!(gather.confirmed(again.ticket).receipts, [1]);
    assert_eq!(body(&gather.take(much_later).unwrap()), "line 0002\n");
}

/// Names the lanes of the parcels that may be sent now.
fn names(gather: &mut Gather<u32>, now: Instant) -> Vec<String> {
    let parcels = std::iter::from_fn(|| gather.take(now));
    parcels.map(|parcel| parcel.lane.routing_key().to_owned()).collect()
}

#[test]
fn what_closes_the_channel_is_found_and_held_alone() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    let (a, b) = (lane("a"), lane("b"));
    push(&mut gather, &a, 1);
    push(&mut gather, &b, 2);
    let first = gather.take(now).unwrap();
    let bad = gather.take(now).unwrap();
    assert_eq!(gather.closed(true, now), None, "it may be either");
    push(&mut gather, &b, 3);
    for _ in 0..2 {
        // Each suspect goes alone; nothing goes with it.
        assert_eq!(gather.take(now).unwrap().id, first.id);
        assert!(gather.take(now).is_none());
        gather.lost();
    }
    let again = gather.take(now).unwrap();
    assert_eq!(gather.confirmed(again.ticket).receipts, [1]);
    assert_eq!(gather.take(now).unwrap().id, bad.id);
    let culprit = gather.closed(true, now).unwrap();
    assert_eq!((culprit.lane, culprit.id), (b.clone(), bad.id));
    assert_eq!((culprit.bytes, culprit.records, culprit.is_new), (10, 1, true));
    assert!(gather.has_culprits());

    // Its lane waits, the other does not.
    push(&mut gather, &a, 4);
    let other = gather.take(now).unwrap();
    assert_eq!(body(&other), "line 0004\n");
    assert!(gather.take(now + Duration::from_secs(1)).is_none(), "there are 3 s in between");
    let later = now + Duration::from_secs(3);
    assert!(gather.take(later).is_none(), "a suspect goes alone");
    assert_eq!(gather.confirmed(other.ticket).receipts, [4]);
    assert_eq!(gather.next_wake(), Some(later));
    assert_eq!(gather.take(later).unwrap().id, bad.id);
    assert!(!gather.closed(true, later).unwrap().is_new);

    let at_last = later + Duration::from_secs(3);
    let taken = gather.take(at_last).unwrap();
    assert_eq!(gather.confirmed(taken.ticket).receipts, [2]);
    assert!(!gather.has_culprits());
    assert_eq!(body(&gather.take(at_last).unwrap()), "line 0003\n");
}

#[test]
fn many_culprits_are_tried_in_turn_with_time_between_them() {
    let (mut gather, mut now) = (gather(LIMITS), Instant::now());
    let (good, bad) = (lane("good"), ["a", "b", "c"].map(lane));
    for (number, lane) in (1..).zip(&bad) {
        push(&mut gather, lane, number);
        gather.take(now).unwrap();
    }
    assert_eq!(gather.closed(true, now), None);
    for number in 10..13 {
        // While they are found, what is there when the channel opens goes first.
        push(&mut gather, &good, number);
        let healthy = gather.take(now).unwrap();
        assert_eq!(healthy.lane, good);
        push(&mut gather, &good, 100 + number);
        assert!(gather.take(now).is_none(), "the next suspect goes alone");
        assert_eq!(gather.confirmed(healthy.ticket).receipts, [number]);
        assert!(bad.contains(&gather.take(now).unwrap().lane));
        assert!(gather.closed(true, now).unwrap().is_new);
        let healthy = gather.take(now).unwrap();
        assert_eq!(gather.confirmed(healthy.ticket).receipts, [100 + number]);
        gather.lost();
    }
    let mut tried = Vec::new();
    for _ in 0..6 {
        // All have waited for long, and one is tried.
        now += Duration::from_secs(20);
        tried.extend(names(&mut gather, now));
        assert!(!gather.closed(true, now).unwrap().is_new);
        assert!(names(&mut gather, now + Duration::from_millis(2_999)).is_empty());
    }
    assert_eq!(tried, ["a", "b", "c", "a", "b", "c"]);

    // Taken at last, they go one after the other.
    now += Duration::from_secs(20);
    for key in ["a", "b", "c"] {
        let parcel = gather.take(now).unwrap();
        assert_eq!(parcel.lane.routing_key(), key);
        gather.confirmed(parcel.ticket);
    }
    assert!(gather.is_empty() && !gather.has_culprits());
}

#[test]
fn what_is_not_answered_is_suspected_no_longer_and_stops_nobody() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    let (silent, other) = (lane("silent"), lane("other"));
    push(&mut gather, &silent, 1);
    push(&mut gather, &other, 2);
    gather.take(now).unwrap();
    gather.take(now).unwrap();
    gather.closed(true, now);
    assert_eq!(names(&mut gather, now), ["silent"]);
    let passed = gather.next_wake().unwrap();
    assert_eq!(passed, now + PASSED_AFTER);
    // With the silent one still on its way, the other is found guilty.
    assert_eq!(names(&mut gather, passed), ["other"]);
    assert_eq!(gather.closed(true, passed).unwrap().lane, other);
    push(&mut gather, &lane("third"), 3);
    let mut later = passed + Duration::from_secs(9);
    assert_eq!(names(&mut gather, later), ["silent", "third"], "no trial yet");
    later += PASSED_AFTER;
    assert_eq!(names(&mut gather, later), ["other"]);
    // It ends also if it is not answered.
    push(&mut gather, &lane("fourth"), 4);
    assert!(names(&mut gather, later).is_empty());
    assert_eq!(names(&mut gather, later + PASSED_AFTER), ["fourth"]);
    assert!(!gather.has_culprits());
    gather.lost();
    let order = names(&mut gather, later + PASSED_AFTER);
    assert_eq!(order, ["silent", "other", "third", "fourth"], "nobody is suspected");
}

#[test]
fn a_refusal_proves_that_a_message_closes_no_channel() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    push(&mut gather, &lane("a"), 1);
    gather.take(now).unwrap();
    assert!(gather.closed(true, now).is_some());
    let later = gather.next_wake().unwrap();
    let again = gather.take(later + Duration::from_secs(3)).unwrap();
    gather.refused(again.ticket, later);
    assert!(!gather.has_culprits());
    assert_eq!((gather.next_wake().unwrap() - later).as_millis(), 50, "as after any refusal");
    push(&mut gather, &lane("b"), 2);
    assert_eq!(names(&mut gather, later + Duration::from_secs(1)), ["a", "b"]);
}

#[test]
fn what_lanes_take_that_are_held_up_is_known() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    let (a, each) = (lane("a"), 10 + ENTRY_OVERHEAD);
    push(&mut gather, &a, 1);
    let parcel = gather.take(now).unwrap();
    assert_eq!((gather.turned().count(), gather.held_up()), (0, 0));
    gather.refused(parcel.ticket, now);
    push(&mut gather, &a, 2);
    push(&mut gather, &lane("b"), 3);
    assert_eq!(gather.turned().collect::<Vec<_>>(), [(a.clone(), true)]);
    assert_eq!(gather.held_up(), 2 * each);
    let later = now + Duration::from_secs(1);
    gather.take(later).unwrap();
    gather.confirmed(parcel.ticket);
    assert_eq!((gather.turned().count(), gather.held_up()), (0, each), "one still waits");
    gather.take(later).unwrap();
    assert_eq!(gather.turned().collect::<Vec<_>>(), [(a, false)]);
    assert_eq!(gather.held_up(), 0);
}

#[test]
fn without_proof_nothing_is_held() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    push(&mut gather, &lane("a"), 1);
    let first = gather.take(now).unwrap();
    assert_eq!(gather.closed(false, now), None);
    assert_eq!(gather.take(now).unwrap().id, first.id);
}

#[test]
fn outcomes_come_in_the_order_of_publishing() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    let lane = lane("a");
    push(&mut gather, &lane, 1);
    let first = gather.take(now).unwrap();
    push(&mut gather, &lane, 2);
    let second = gather.take(now).unwrap();
    assert!(gather.confirmed(second.ticket).receipts.is_empty());
    gather.lost();
    let again = gather.take(now).unwrap();
    assert_eq!(again.id, first.id);
    assert!(gather.take(now).is_none(), "what is confirmed is not sent again");
    assert_eq!(gather.confirmed(again.ticket).receipts, [1, 2]);
    assert!(gather.is_empty());
}

#[test]
fn what_is_given_up_comes_back_once() {
    let (mut gather, now) = (gather(LIMITS), Instant::now());
    let lane = lane("a");
    for number in 0..6 {
        push(&mut gather, &lane, number);
    }
    let parcel = gather.take(now).unwrap();
    let settled = gather.abandon();
    assert_eq!(settled.receipts, [0, 1, 2, 3, 4, 5]);
    assert_eq!(settled.cost, 6 * (10 + ENTRY_OVERHEAD));
    assert!(gather.is_empty() && gather.take(now).is_none());
    assert!(gather.confirmed(parcel.ticket).receipts.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Take,
    Confirm(usize),
    Refuse(usize),
    Lose,
    Close(bool),
    Wait,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..3).prop_map(Step::Push),
        4 => Just(Step::Take),
        3 => any::<usize>().prop_map(Step::Confirm),
        2 => any::<usize>().prop_map(Step::Refuse),
        1 => Just(Step::Lose),
        1 => any::<bool>().prop_map(Step::Close),
        1 => Just(Step::Wait),
    ];
    prop::collection::vec(step, 0..200)
}

/// A gather with the world around it.
struct World {
    gather: Gather<u32>,
    lanes: Vec<Lane>,
    now: Instant,
    pushed: u32,
    taken_in: usize,
    given_back: usize,
    on_the_way: Vec<Parcel>,
    /// For each lane: what was published, and what was settled.
    published: Vec<Vec<u32>>,
    settled: Vec<Vec<u32>>,
    /// What a message with this id had in it when it was sent first.
    bodies: HashMap<Uuid, Bytes>,
}

impl World {
    fn new() -> Self {
        Self {
            gather: gather(LIMITS),
            lanes: vec![lane("a"), lane("b"), lane("c").alone()],
            now: Instant::now(),
            pushed: 0,
            taken_in: 0,
            given_back: 0,
            on_the_way: Vec::new(),
            published: vec![Vec::new(); 3],
            settled: vec![Vec::new(); 3],
            bodies: HashMap::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Push(lane) => {
                let lane = usize::from(*lane);
                self.pushed += 1;
                self.taken_in += 10 + ENTRY_OVERHEAD;
                self.published[lane].push(self.pushed);
                push(&mut self.gather, &self.lanes[lane], self.pushed);
            }
            Step::Take => self.take(),
            Step::Confirm(which) => {
                if let Some(parcel) = self.pick(*which) {
                    let lane = self.lanes.iter().position(|l| *l == parcel.lane).unwrap();
                    let settled = self.gather.confirmed(parcel.ticket);
                    self.given_back += settled.cost;
                    self.settled[lane].extend(settled.receipts);
                }
            }
            Step::Refuse(which) => {
                if let Some(parcel) = self.pick(*which) {
                    self.gather.refused(parcel.ticket, self.now);
                }
            }
            Step::Lose => {
                self.on_the_way.clear();
                self.gather.lost();
            }
            Step::Close(proven) => {
                let on_trial = self.gather.last.is_some_and(|last| last.on_trial);
                let single = on_trial || self.on_the_way.len() == 1;
                let culprit = self.gather.closed(*proven, self.now);
                assert_eq!(culprit.is_some(), single && *proven);
                self.on_the_way.clear();
            }
            Step::Wait => self.now += Duration::from_secs(10),
        }
    }

    fn pick(&mut self, which: usize) -> Option<Parcel> {
        let count = self.on_the_way.len();
        (count > 0).then(|| self.on_the_way.remove(which % count))
    }

    fn take(&mut self) {
        let Some(parcel) = self.gather.take(self.now) else { return };
        let first = self.bodies.entry(parcel.id).or_insert_with(|| parcel.body.clone());
        assert_eq!(*first, parcel.body, "sent again, it is the same message");
        let most = if parcel.lane.is_alone() { 1 } else { LIMITS.batch_records };
        assert!((1..=most).contains(&parcel.records));
        assert_eq!(body(&parcel).lines().count(), parcel.records);
        self.on_the_way.push(parcel);
    }

    fn check(&self) {
        assert!(self.on_the_way.len() <= LIMITS.in_flight);
        for lane in &self.lanes {
            let count = self.on_the_way.iter().filter(|parcel| parcel.lane == *lane).count();
            assert!(count <= LIMITS.window);
        }
        for (published, settled) in self.published.iter().zip(&self.settled) {
            assert!(published.starts_with(settled), "{published:?} {settled:?}");
        }
    }

    /// Lets RabbitMQ confirm everything.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            for step in [Step::Wait, Step::Take, Step::Confirm(0)] {
                self.step(&step);
            }
            if self.gather.is_empty() {
                break;
            }
        }
        assert!(self.gather.is_empty());
        assert_eq!(self.published, self.settled);
        assert_eq!(self.taken_in, self.given_back);
        assert!(self.gather.ready.is_empty() && self.gather.held.is_empty());
        assert!(self.gather.names.is_empty() && self.gather.in_flight == 0);
        assert!(!self.gather.has_culprits() && self.gather.last.is_none());
        assert_eq!(self.gather.held_up, 0);
    }
}

proptest! {
    #[test]
    fn everything_is_settled_once_and_in_order(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.finish();
    }
}
