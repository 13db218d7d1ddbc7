use std::num::NonZeroU16;

use super::*;
use crate::packet::Properties;

fn pubrel(number: u16) -> Packet {
    Packet::Pubrel(id(number), Reason::SUCCESS)
}

#[test]
fn answers_follow_receipts_in_the_order_of_the_publishes() {
    for mut world in World::each() {
        assert_eq!(world.publish(publish("a", 1, 7)), "take a");
        assert_eq!(world.publish(publish("b", 2, 8)), "take b");
        assert_eq!(world.publish(publish("c", 1, 9)), "take c");
        assert_eq!(world.session.in_flight(), 3);
        assert_eq!(world.confirm(2), "");
        assert_eq!(world.confirm(1), "");
        assert_eq!(world.packet(Packet::Pingreq), "PINGRESP");
        assert_eq!(world.confirm(0), "PUBACK 7 00; PUBREC 8 00; PUBACK 9 00");
        assert_eq!(world.session.in_flight(), 0);
        // A receipt that comes twice changes nothing.
        assert_eq!(world.confirm(0), "");
    }
}

#[test]
fn qos_0_has_no_answer_but_counts() {
    for mut world in World::each() {
        for topic in ["a", "b", "c"] {
            assert!(world.session.may_read());
            world.publish(publish(topic, 0, 0));
        }
        assert_eq!(world.session.in_flight(), 3);
        assert!(!world.session.may_read());
        assert_eq!(world.receipt(0, Receipt::Failed), "");
        assert!(world.session.may_read());
        assert_eq!(world.refuse(1), "");
        assert_eq!(world.confirm(2), "");
        assert_eq!(world.session.in_flight(), 0);
    }
}

#[test]
fn reading_stops_in_3_1_1_and_exceeding_is_an_error_in_5() {
    let mut world = World::v3();
    for number in 1..=3 {
        assert!(world.session.may_read());
        world.publish(publish("a", 1, number));
    }
    assert!(!world.session.may_read());
    assert_eq!(world.confirm(0), "PUBACK 1 00");
    assert!(world.session.may_read());

    let mut world = World::v5();
    for number in 1..=3 {
        world.publish(publish("a", 2, number));
    }
    assert!(world.session.may_read());
    // PUBREC alone makes no room; PUBCOMP does.
    assert_eq!(world.confirm(0), "PUBREC 1 00");
    assert_eq!(world.packet(pubrel(1)), "PUBCOMP 1 00");
    assert_eq!(world.publish(publish("a", 1, 4)), "take a");
    assert_eq!(world.publish(publish("a", 1, 5)), "DISCONNECT 93; close Gateway 93");
}

#[test]
fn a_3_1_1_client_may_have_many_messages_to_release() {
    let mut world = World::v3();
    for number in 1..=10 {
        assert!(world.session.may_read());
        world.publish(publish("a", 2, number));
        assert_eq!(world.confirm(usize::from(number) - 1), format!("PUBREC {number} 00"));
    }
    assert!(world.session.may_read());
    assert_eq!(world.packet(pubrel(10)), "PUBCOMP 10 00");
}

#[test]
fn qos_2_is_taken_once() {
    for mut world in World::each() {
        assert_eq!(world.publish(publish("a", 2, 7)), "take a");
        assert_eq!(world.publish(dup(publish("a", 2, 7))), "");
        assert_eq!(world.confirm(0), "PUBREC 7 00");
        assert_eq!(world.publish(dup(publish("a", 2, 7))), "PUBREC 7 00");
        assert_eq!(world.publish(publish("a", 2, 7)), "PUBREC 7 00");
        assert_eq!(world.packet(pubrel(7)), "PUBCOMP 7 00");
        assert_eq!(world.publish(publish("a", 2, 7)), "take a");
        assert_eq!(world.confirm(1), "PUBREC 7 00");
        assert_eq!(world.packet(pubrel(7)), "PUBCOMP 7 00");
        assert_eq!(world.packet(pubrel(7)), "PUBCOMP 7 92");
        assert_eq!(world.packet(pubrel(1)), "PUBCOMP 1 92");
    }
}

#[test]
fn pubrel_before_pubrec_is_an_error() {
    let [mut v3, mut v5] = World::each();
    v3.publish(publish("a", 2, 7));
    assert_eq!(v3.packet(pubrel(7)), "close Gateway 82");
    v5.publish(publish("a", 2, 7));
    assert_eq!(v5.packet(pubrel(7)), "DISCONNECT 82; close Gateway 82");
}

#[test]
fn a_refusal_is_told_as_the_protocol_can() {
    for (mut world, rest) in World::each().into_iter().zip(["PUBREC 8 00", "take b"]) {
        world.publish(publish("a", 1, 7));
        assert_eq!(world.refuse(0), "PUBACK 7 87 words");
        world.publish(publish("b", 2, 8));
        assert_eq!(world.refuse(1), "PUBREC 8 87 words");
        // In MQTT 5 the exchange has ended; in 3.1.1 the client does not know, and goes on.
        assert_eq!(world.publish(publish("b", 2, 8)), rest);
    }
}

#[test]
fn a_failure_ends_the_connection_so_that_the_client_sends_again() {
    let [mut v3, mut v5] = World::each();
    v3.publish(publish("a", 1, 7));
    assert_eq!(v3.receipt(0, Receipt::Failed), "close Gateway 80");
    v5.publish(publish("a", 2, 7));
    assert_eq!(v5.receipt(0, Receipt::Failed), "DISCONNECT 80; close Gateway 80");
}

#[test]
fn an_identifier_is_used_once_at_a_time() {
    for mut world in World::each() {
        world.publish(publish("a", 1, 7));
        assert_eq!(world.publish(dup(publish("a", 1, 7))), "");
        assert_eq!(world.confirm(0), "PUBACK 7 00");
        assert_eq!(world.publish(publish("a", 1, 7)), "take a");
    }
    for (first, second) in [(1, 1), (1, 2), (2, 1)] {
        let mut world = World::v3();
        world.publish(publish("a", first, 7));
        assert_eq!(world.publish(publish("b", second, 7)), "close Gateway 82");
    }
    let mut world = World::v5();
    world.publish(publish("a", 1, 7));
    assert_eq!(world.publish(publish("b", 1, 7)), "");
    assert_eq!(world.publish(publish("b", 2, 7)), "");
    assert_eq!(world.confirm(0), "PUBACK 7 00; PUBACK 7 91; PUBREC 7 91");
    assert_eq!(world.publish(publish("c", 2, 7)), "take c");
    assert_eq!(world.confirm(1), "PUBREC 7 00");
    assert_eq!(world.publish(publish("d", 1, 7)), "PUBACK 7 91");
    assert_eq!(world.packet(pubrel(7)), "PUBCOMP 7 00");
}

#[test]
fn refused_identifiers_are_bounded_too() {
    let mut world = World::v5();
    world.publish(publish("a", 1, 7));
    world.publish(publish("a", 1, 7));
    world.publish(publish("a", 1, 7));
    assert_eq!(world.session.in_flight(), 3);
    assert_eq!(world.publish(publish("a", 1, 7)), "DISCONNECT 93; close Gateway 93");
}

#[test]
fn topic_aliases() {
    let alias = |topic: &str, number: u16| Publish {
        alias: NonZeroU16::new(number),
        ..publish(topic, 0, 0)
    };
    let mut world = World::v5();
    assert_eq!(world.publish(alias("a", 4)), "take a");
    assert_eq!(world.publish(alias("", 4)), "take a");
    assert_eq!(world.publish(alias("b", 4)), "take b");
    world.confirm(0);
    assert_eq!(world.publish(alias("", 4)), "take b");

    let refused = |publish: Publish, want: &str| {
        let mut world = World::v5();
        world.publish(alias("a", 2));
        assert_eq!(world.publish(publish), want);
    };
    refused(alias("", 1), "DISCONNECT 82; close Gateway 82");
    refused(alias("", 3), "DISCONNECT 82; close Gateway 82");
    refused(alias("a", 5), "DISCONNECT 94; close Gateway 94");
    refused(alias("", 65_535), "DISCONNECT 94; close Gateway 94");
    refused(publish("", 0, 0), "DISCONNECT 82; close Gateway 82");
}

#[test]
fn publishes_that_end_the_connection() {
    let check = |publish: Publish, code: &str| {
        let [mut v3, mut v5] = World::each();
        assert_eq!(v3.publish(publish.clone()), format!("close Gateway {code}"));
        let want = format!("DISCONNECT {}; close Gateway {code}", &code[..2]);
        assert_eq!(v5.publish(publish), want);
    };
    check(publish("a/+", 0, 0), "90");
    check(publish("#", 1, 1), "90");
    check(publish("", 1, 1), "82");
    check(publish("a\0b", 1, 1), "90");
    check(Publish { retain: true, ..publish("a/b", 1, 1) }, "9a +a/b");
    check(Publish { retain: true, ..publish("a/b", 0, 0) }, "9a +a/b");
    check(Publish { retain: true, ..publish("a/#", 0, 0) }, "90");
    let response_topic = Some("a/#".into());
    let properties = Some(Box::new(Properties { response_topic, ..Properties::default() }));
    check(Publish { properties, ..publish("a", 0, 0) }, "82");
}

#[test]
fn dollar_topics_are_for_the_connection_to_judge() {
    for mut world in World::each() {
        assert_eq!(world.publish(publish("$SYS/x", 1, 1)), "take $SYS/x");
    }
}
