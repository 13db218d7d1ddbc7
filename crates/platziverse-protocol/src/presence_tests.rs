use super::*;
use proptest::prelude::*;

fn moment(wall: i64, steady: u64) -> Moment {
    let wall = Timestamp::from_millis(wall).unwrap();
    Moment { wall, steady: Duration::from_millis(steady) }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis).unwrap()
}

#[test]
fn sessions_sort_by_start_even_when_the_clock_goes_back() {
    let mut clock = SessionClock::default();
    let walls = [5_000, 5_000, 4_000, 4_000, 9_000, 1];
    let ids: Vec<_> = walls.iter().map(|wall| clock.start(moment(*wall, 0), u64::MAX)).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    assert!(ids.iter().all(|id| id.as_uuid().get_version_num() == 7));
    assert!(clock.time(moment(1, 0)) >= at(9_000));
}

#[test]
fn a_successor_is_before_whatever_starts_later() {
    let mut clock = SessionClock::default();
    let now = moment(5_000, 0);
    let (first, later) = (clock.start(now, u64::MAX), clock.start(now, 0));
    assert!(first < first.successor() && first.successor() < later);
    assert_eq!(first.successor().as_uuid().get_version_num(), 7);
    assert_eq!(first.successor().as_uuid().get_variant(), uuid::Variant::RFC4122);
}

#[test]
fn a_gateway_that_is_behind_follows_one_that_is_ahead() {
    let (mut ahead, mut behind) = (SessionClock::default(), SessionClock::default());
    assert!(behind.hear(ahead.time(moment(60_000, 5_000)), moment(0, 100)));
    let first = ahead.start(moment(61_000, 6_000), 7);
    let second = behind.start(moment(1_001, 1_101), 0);
    assert!(first < second);
    assert!(!behind.hear(at(LEAD_MILLIS_MAX + 1), moment(0, 2_000)));
}

#[test]
fn a_clock_that_was_set_back_for_a_while_is_not_ahead_afterwards() {
    let mut clock = SessionClock::default();
    assert!(clock.hear(at(1_000_000), moment(400_000, 0)));
    assert_eq!(clock.time(moment(410_000, 10_000)), at(1_010_000));
    // Set right again, it shows what everybody shows.
    assert_eq!(clock.time(moment(1_020_000, 20_000)), at(1_020_000));
}

/// What happens to gateways whose steady clocks agree and whose wall clocks do not.
#[derive(Clone, Debug)]
enum Step {
    Pass { millis: u64 },
    Set { gateway: usize, skew: i64 },
    Start { gateway: usize },
    Hear { from: usize, to: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let gateway = || 0..3usize;
    prop_oneof![
        (0..5_000u64).prop_map(|millis| Step::Pass { millis }),
        (gateway(), -600_000..600_000i64).prop_map(|(gateway, skew)| Step::Set { gateway, skew }),
        gateway().prop_map(|gateway| Step::Start { gateway }),
        (gateway(), gateway()).prop_map(|(from, to)| Step::Hear { from, to }),
    ]
}

proptest! {
    #[test]
    fn what_was_heard_is_behind_and_nothing_runs_ahead(steps in prop::collection::vec(step(), 1..80)) {
        const START: i64 = 1_780_000_000_000;
        let mut clocks: [SessionClock; 3] = Default::default();
        let (mut skews, mut elapsed, mut most_skewed) = ([0i64; 3], 0u64, 0i64);
        // The newest session that each has started, and that each knows to be over by heartbeats.
        let (mut started, mut heard) = ([None::<SessionId>; 3], [None::<SessionId>; 3]);
        for step in steps {
            let now = |gateway: usize, elapsed: u64| {
                moment(START + elapsed as i64 + skews[gateway], elapsed)
            };
            match step {
                Step::Pass { millis } => elapsed += millis,
                Step::Set { gateway, skew } => {
                    skews[gateway] = skew;
                    most_skewed = most_skewed.max(skew);
                }
                Step::Start { gateway } => {
                    let session = clocks[gateway].start(now(gateway, elapsed), 0);
                    prop_assert!(started[gateway].is_none_or(|before| before < session));
                    prop_assert!(heard[gateway].is_none_or(|before| before < session));
                    started[gateway] = Some(session);
                }
                Step::Hear { from, to } => {
                    let time = clocks[from].time(now(from, elapsed));
                    prop_assert!(clocks[to].hear(time, now(to, elapsed)));
                    // A heartbeat tells no counter: later is from the next millisecond on.
                    elapsed += 1;
                    heard[to] = heard[to].max(started[from]).max(heard[from]);
                }
            }
            for (clock, skew) in clocks.iter().zip(skews) {
                let shown = clock.time(moment(START + elapsed as i64 + skew, elapsed));
                let most = START + elapsed as i64 + most_skewed;
                prop_assert!(shown <= at(most), "{shown} is ahead of every clock there was");
            }
        }
    }

    #[test]
    fn any_order_and_any_repetition_gives_the_same(
        history in prop::collection::vec((0u128..6, any::<bool>()), 1..20),
        shuffled in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let states: Vec<_> = history
            .iter()
            .map(|(n, ended)| Presence {
                session: SessionId(Uuid::from_u128(*n)),
                ended: *ended,
            })
            .collect();
        let once = states.iter().copied().reduce(Presence::merge).unwrap();
        let repeats = shuffled.iter().map(|index| *index.get(&states));
        let again = repeats.chain(states.iter().rev().copied()).reduce(Presence::merge);
        prop_assert_eq!(Some(once), again);
        let newest = states.iter().map(|state| state.session).max().unwrap();
        let ended = states.iter().any(|state| state.session == newest && state.ended);
        prop_assert_eq!(once.connected(), !ended);
    }
}
