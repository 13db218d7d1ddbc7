use proptest::prelude::*;

use super::*;

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

fn at(qos: QoS) -> Subscription {
    Subscription { qos, ..Subscription::default() }
}

fn reached(subscriptions: &Subscriptions<u32>, topic: &str) -> Vec<u32> {
    subscriptions.matches(topic, None).into_iter().map(|found| found.client).collect()
}

#[test]
fn who_asks_for_just_one_topic() {
    let mut subscriptions = Subscriptions::new();
    for (client, text) in [
        (1, "agent/yyy/command"),
        (2, "agent/+/command"),
        (3, "agent/#"),
        (4, "agent/zzz/command/#"),
        (5, "agent/xxx/response"),
    ] {
        subscriptions.insert(&filter(text), client, at(QoS::AtLeastOnce));
    }
    assert_eq!(subscriptions.between("agent", "command"), ["yyy"]);
    assert!(subscriptions.has(&1, "agent/yyy/command"));
    for other in 2..=5 {
        assert!(!subscriptions.has(&other, "agent/yyy/command"), "{other}");
    }
    subscriptions.remove(&filter("agent/yyy/command"), &1);
    assert!(subscriptions.between("agent", "command").is_empty());
}

#[test]
fn a_filter_reaches_its_topics() {
    let check = |text: &str, topic: &str, want: bool| {
        let mut subscriptions = Subscriptions::new();
        subscriptions.insert(&filter(text), 1, at(QoS::AtMostOnce));
        assert_eq!(!reached(&subscriptions, topic).is_empty(), want, "{text} on {topic}");
    };
    check("sport/#", "sport", true);
    check("sport/#", "sport/tennis/p1", true);
    check("sport/+", "sport", false);
    check("sport/+", "sport/", true);
    check("+/+", "/finance", true);
    check("+", "/finance", false);
    check("#", "a/b/c", true);
    check("a//c", "a//c", true);
    check("a//c", "a/c", false);
    check("/", "/", true);
    check("#", "$SYS/x", false);
    check("+/x", "$SYS/x", false);
    check("+/#", "$SYS", false);
    check("$SYS/#", "$SYS/x", true);
    check("$SYS/+", "$SYS/x", true);
    check("a/#", "a/$x", true);
}

#[test]
fn a_client_is_reached_once() {
    let mut subscriptions = Subscriptions::new();
    let id = NonZeroU32::new;
    subscriptions.insert(&filter("a/+"), 1, Subscription { id: id(7), ..at(QoS::AtMostOnce) });
    subscriptions.insert(&filter("a/#"), 1, Subscription { id: id(8), ..at(QoS::AtLeastOnce) });
    subscriptions.insert(&filter("#"), 1, at(QoS::AtMostOnce));
    subscriptions.insert(&filter("a/b"), 2, at(QoS::AtMostOnce));
    let found = subscriptions.matches("a/b", None);
    assert_eq!(found.iter().map(|m| m.client).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(found[0].qos, QoS::AtLeastOnce);
    let mut ids: Vec<_> = found[0].ids.iter().map(|id| id.get()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [7, 8]);
    assert_eq!(found[1].ids, []);
}

#[test]
fn no_local_leaves_out_what_the_client_published() {
    let mut subscriptions = Subscriptions::new();
    let local = Subscription { no_local: true, ..at(QoS::AtLeastOnce) };
    subscriptions.insert(&filter("a/#"), 1, local);
    subscriptions.insert(&filter("a/#"), 2, local);
    let clients = |found: Vec<Match<u32>>| found.into_iter().map(|m| m.client).collect::<Vec<_>>();
    assert_eq!(clients(subscriptions.matches("a/b", Some(&1))), [2]);
    assert_eq!(clients(subscriptions.matches("a/b", Some(&3))), [1, 2]);

    // Another subscription of the same client still wants it, at its own QoS.
    subscriptions.insert(&filter("a/b"), 1, at(QoS::AtMostOnce));
    let found = subscriptions.matches("a/b", Some(&1));
    assert_eq!((found[0].client, found[0].qos), (1, QoS::AtMostOnce));
}

#[test]
fn the_first_and_the_last_are_told() {
    let mut subscriptions = Subscriptions::new();
    let plain = at(QoS::AtMostOnce);
    let inserted = |first, replaced| Inserted { first, replaced };
    assert_eq!(subscriptions.insert(&filter("a/#"), 1, plain), inserted(true, false));
    assert_eq!(subscriptions.insert(&filter("a/#"), 1, plain), inserted(false, true));
    assert_eq!(subscriptions.insert(&filter("a/#"), 2, plain), inserted(false, false));
    assert_eq!(subscriptions.insert(&filter("a"), 2, plain), inserted(true, false));
    assert_eq!((subscriptions.filters(), subscriptions.filters_of(&2)), (2, 2));

    let removed = |existed, last| Removed { existed, last };
    assert_eq!(subscriptions.remove(&filter("a/b"), &1), removed(false, false));
    assert_eq!(subscriptions.remove(&filter("a/#"), &1), removed(true, false));
    assert_eq!(subscriptions.remove(&filter("a/#"), &1), removed(false, false));
    subscriptions.insert(&filter("a"), 3, plain);
    let mut last = |client| {
        let removed = subscriptions.remove_client(&client).into_iter();
        removed.filter(|(_, last)| *last).map(|(filter, _)| filter).collect::<Vec<_>>()
    };
    assert_eq!(last(2), [filter("a/#")]);
    assert_eq!(last(3), [filter("a")]);
    assert_eq!((subscriptions.filters(), subscriptions.filters_of(&2)), (0, 0));
}

#[test]
fn nothing_is_left_behind() {
    let mut subscriptions = Subscriptions::new();
    for round in 0..3 {
        for client in 0..50 {
            let text = format!("a/{client}/+/b/#");
            subscriptions.insert(&filter(&text), client, at(QoS::AtMostOnce));
        }
        assert_eq!(subscriptions.nodes.len(), 1 + 1 + 50 * 3, "round {round}");
        for client in 0..50 {
            subscriptions.remove_client(&client);
        }
        assert_eq!(subscriptions.free.len(), subscriptions.nodes.len() - 1);
        assert!(subscriptions.nodes.iter().all(Node::is_empty));
    }
}

#[test]
fn a_filter_of_very_many_levels_is_no_danger() {
    let mut subscriptions = Subscriptions::new();
    let deep = filter(&"/".repeat(65_535));
    subscriptions.insert(&deep, 1, at(QoS::AtMostOnce));
    assert_eq!(reached(&subscriptions, &deep), [1]);
    assert!(subscriptions.remove(&deep, &1).last);
}

fn levels(words: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(words, 1..5).prop_map(|levels| levels.join("/"))
}

fn filters() -> impl Strategy<Value = TopicFilter> {
    let tail = prop::option::of(Just("/#"));
    let text = (levels("(a|b|\\+|\\$x|)"), tail).prop_map(|(text, tail)| text + tail.unwrap_or(""));
    prop_oneof![9 => text, 1 => Just("#".to_owned())]
        .prop_filter_map("not a filter", |text| TopicFilter::parse(&text).ok())
}

proptest! {
    #[test]
    fn the_tree_agrees_with_each_filter(
        script in prop::collection::vec((any::<bool>(), 0..4_u32, filters()), 0..40),
        topics in prop::collection::vec(levels("(a|b|c|\\$x|)"), 1..8),
    ) {
        let mut subscriptions = Subscriptions::new();
        let mut naive: BTreeSet<(u32, TopicFilter)> = BTreeSet::new();
        for (insert, client, filter) in script {
            let others = |naive: &BTreeSet<(u32, TopicFilter)>| {
                naive.iter().any(|(c, f)| *f == filter && *c != client)
            };
            let held = naive.contains(&(client, filter.clone()));
            if insert {
                let got = subscriptions.insert(&filter, client, at(QoS::AtMostOnce));
                prop_assert_eq!(got, Inserted { first: !held && !others(&naive), replaced: held });
                naive.insert((client, filter));
            } else {
                let got = subscriptions.remove(&filter, &client);
                prop_assert_eq!(got, Removed { existed: held, last: held && !others(&naive) });
                naive.remove(&(client, filter));
            }
        }
        for topic in topics {
            let want: BTreeSet<u32> = naive
                .iter()
                .filter(|(_, filter)| filter.matches(&topic))
                .map(|(client, _)| *client)
                .collect();
            let got = reached(&subscriptions, &topic);
            prop_assert_eq!(got, want.into_iter().collect::<Vec<_>>(), "{}", topic);
        }
    }
}
