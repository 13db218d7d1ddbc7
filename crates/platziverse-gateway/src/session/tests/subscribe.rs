use super::*;
use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};

const SHARED: Reason = Reason::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED;

fn answer(world: &mut World, packet_id: u16, reasons: &[Reason]) -> String {
    world.act(|session, _, out| session.subscribed(id(packet_id), reasons, out))
}

fn unanswer(world: &mut World, packet_id: u16, reasons: &[Reason]) -> String {
    world.act(|session, _, out| session.unsubscribed(id(packet_id), reasons, out))
}

#[test]
fn at_most_1_is_granted() {
    for mut world in World::each() {
        let packet = subscribe(7, &[("a", AtMostOnce), ("b/#", AtLeastOnce), ("+", ExactlyOnce)]);
        assert_eq!(world.packet(packet), "subscribe 7 a@0,b/#@1,+@1");
        let reasons = [Reason::SUCCESS; 3];
        assert_eq!(answer(&mut world, 7, &reasons), "SUBACK 7 00 01 01");
        assert_eq!(answer(&mut world, 7, &reasons), "");
    }
}

#[test]
fn each_filter_has_its_answer() {
    for mut world in World::each() {
        let long = "x/".repeat(200);
        let packet = subscribe(
            7,
            &[
                ("a", AtLeastOnce),
                ("$share/g/a", AtLeastOnce),
                ("a/#/b", AtLeastOnce),
                ("b", AtLeastOnce),
                ("", AtLeastOnce),
                (&long, AtLeastOnce),
                ("$SYS/#", AtMostOnce),
            ],
        );
        assert_eq!(world.packet(packet), "subscribe 7 a@1,b@1,$SYS/#@0");
        let reasons = [Reason::NOT_AUTHORIZED, Reason::SUCCESS, Reason::QUOTA_EXCEEDED];
        assert_eq!(answer(&mut world, 7, &reasons), "SUBACK 7 87 9e 8f 01 8f 83 97");
    }
}

#[test]
fn when_nothing_is_left_to_ask_the_answer_is_immediate() {
    for mut world in World::each() {
        let packet = subscribe(7, &[("$share/g/a", AtLeastOnce)]);
        assert_eq!(world.packet(packet), format!("SUBACK 7 {:02x}", SHARED.code()));
        assert_eq!(world.packet(unsubscribe(8, &["$share/g/a", "a#"])), "UNSUBACK 8 11 8f");
    }
}

#[test]
fn unsubscribing() {
    for mut world in World::each() {
        assert_eq!(world.packet(unsubscribe(7, &["a", "b", "c#"])), "unsubscribe 7 a,b");
        let reasons = [Reason::SUCCESS, Reason::NO_SUBSCRIPTION_EXISTED];
        assert_eq!(answer(&mut world, 7, &reasons), "");
        assert_eq!(unanswer(&mut world, 7, &reasons), "UNSUBACK 7 00 11 8f");
    }
}

#[test]
fn answers_do_not_wait_for_publishes() {
    for mut world in World::each() {
        world.publish(publish("a", 1, 1));
        world.packet(subscribe(7, &[("a", AtLeastOnce)]));
        assert_eq!(answer(&mut world, 7, &[Reason::SUCCESS]), "SUBACK 7 01");
        assert_eq!(world.confirm(0), "PUBACK 1 00");
    }
}

#[test]
fn a_missing_answer_is_a_refusal() {
    let mut world = World::v5();
    world.packet(subscribe(7, &[("a", AtLeastOnce), ("b", AtLeastOnce)]));
    assert_eq!(answer(&mut world, 7, &[Reason::SUCCESS]), "SUBACK 7 01 80");
}

#[test]
fn an_identifier_is_used_once_at_a_time() {
    let [mut v3, mut v5] = World::each();
    v3.packet(subscribe(7, &[("a", AtLeastOnce)]));
    assert_eq!(v3.packet(subscribe(7, &[("b", AtLeastOnce)])), "close Gateway 82");
    v5.packet(subscribe(7, &[("a", AtLeastOnce)]));
    let twice = subscribe(7, &[("b", AtLeastOnce), ("c", AtLeastOnce)]);
    assert_eq!(v5.packet(twice), "SUBACK 7 91 91");
    assert_eq!(v5.packet(unsubscribe(7, &["a"])), "UNSUBACK 7 91");
    assert_eq!(answer(&mut v5, 7, &[Reason::SUCCESS]), "SUBACK 7 01");
}

#[test]
fn reading_stops_while_too_many_are_pending() {
    for mut world in World::each() {
        world.packet(subscribe(1, &[("a", AtLeastOnce)]));
        assert!(world.session.may_read());
        world.packet(unsubscribe(2, &["a"]));
        assert!(!world.session.may_read());
        answer(&mut world, 1, &[Reason::SUCCESS]);
        assert!(world.session.may_read());
    }
}

#[test]
fn the_options_and_the_identifier_are_passed_on() {
    let mut world = World::v5();
    let options = Options { qos: ExactlyOnce, no_local: true, ..Options::default() };
    let filters = vec![("a".into(), options)];
    let id = NonZeroU32::new(9);
    let packet = Packet::Subscribe(Subscribe { packet_id: super::id(7), id, filters });
    let mut out = Vec::new();
    world.session.packet(packet, world.now, &mut out);
    let Action::Subscribe { wanted, .. } = &out[0] else { panic!("{out:?}") };
    assert_eq!(wanted[0].options, Options { qos: AtLeastOnce, ..options });
    assert_eq!(wanted[0].id, id);
}

#[test]
fn a_shared_subscription_with_no_local_is_an_error() {
    let options = Options { no_local: true, ..Options::default() };
    let filters = vec![("$share/g/a".into(), options)];
    let packet = Packet::Subscribe(Subscribe { packet_id: id(7), id: None, filters });
    assert_eq!(World::v5().packet(packet), "DISCONNECT 82; close Gateway 82");
}
