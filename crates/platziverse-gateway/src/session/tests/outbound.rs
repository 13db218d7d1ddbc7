use super::*;

fn puback(number: u16) -> Packet {
    Packet::Puback(id(number), Reason::SUCCESS)
}

#[test]
fn the_level_is_the_lesser_and_at_most_1() {
    use QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
    for mut world in World::each() {
        assert_eq!(world.deliver(message(0), AtMostOnce), "PUBLISH@0");
        assert_eq!(world.deliver(message(0), AtLeastOnce), "PUBLISH@0");
        assert_eq!(world.deliver(message(1), AtMostOnce), "PUBLISH@0");
        assert_eq!(world.deliver(message(1), AtLeastOnce), "PUBLISH@1 1");
        assert_eq!(world.deliver(message(2), ExactlyOnce), "PUBLISH@1 2");
    }
}

#[test]
fn the_window_bounds_what_is_unacknowledged() {
    for mut world in World::each() {
        let qos_1 = |world: &mut World| world.deliver(message(1), QoS::AtLeastOnce);
        assert_eq!(qos_1(&mut world), "PUBLISH@1 1");
        assert_eq!(qos_1(&mut world), "PUBLISH@1 2");
        assert_eq!(qos_1(&mut world), "");
        // In order, so QoS 0 does not overtake.
        assert_eq!(world.deliver(message(0), QoS::AtLeastOnce), "");
        assert_eq!(world.session.queued(), 2);
        assert_eq!(world.packet(puback(9)), "");
        assert_eq!(world.packet(puback(2)), "PUBLISH@1 3; PUBLISH@0");
        assert_eq!(world.packet(puback(1)), "");
        assert_eq!(qos_1(&mut world), "PUBLISH@1 4");
        // In any order, also twice.
        assert_eq!(world.packet(puback(4)), "");
        assert_eq!(world.packet(puback(4)), "");
        assert_eq!(world.packet(puback(3)), "");
    }
}

#[test]
fn the_window_is_not_more_than_the_client_takes() {
    let mut world = World::open(Connect { receive_maximum: id(1), ..connect(Version::V5) });
    assert_eq!(world.deliver(message(1), QoS::AtLeastOnce), "PUBLISH@1 1");
    assert_eq!(world.deliver(message(1), QoS::AtLeastOnce), "");
    assert_eq!(world.packet(puback(1)), "PUBLISH@1 2");
}

#[test]
fn an_identifier_in_use_is_skipped() {
    let mut world = World::v5();
    world.deliver(message(1), QoS::AtLeastOnce);
    for number in 2..=65_535 {
        assert_eq!(world.deliver(message(1), QoS::AtLeastOnce), format!("PUBLISH@1 {number}"));
        world.packet(puback(number));
    }
    assert_eq!(world.deliver(message(1), QoS::AtLeastOnce), "PUBLISH@1 2");
}

#[test]
fn a_full_queue_drops_qos_0_and_ends_at_qos_1() {
    let filled = |version| {
        let mut world = World::with_will(version);
        assert_eq!(world.act(|session, now, out| session.set_writable(false, now, out)), "");
        assert_eq!(world.deliver(message(0), QoS::AtMostOnce), "");
        assert_eq!(world.deliver(message(1), QoS::AtLeastOnce), "");
        assert_eq!(world.deliver(message(0), QoS::AtMostOnce), "drop 1 QueueFull");
        world
    };
    let writable = |session: &mut Session, now, out: &mut Vec<Action>| {
        session.set_writable(true, now, out);
    };
    assert_eq!(filled(Version::V3).act(writable), "PUBLISH@0; PUBLISH@1 1");
    let overflow = |mut world: World| world.deliver(message(1), QoS::AtLeastOnce);
    assert_eq!(
        overflow(filled(Version::V3)),
        "drop 1 QueueFull; drop 2 Closed; close Gateway 97 +will"
    );
    assert_eq!(
        overflow(filled(Version::V5)),
        "drop 1 QueueFull; DISCONNECT 97; drop 2 Closed; close Gateway 97 +will"
    );
}

#[test]
fn expired_messages_are_dropped_and_the_rest_say_how_long() {
    let mut world = World::v5();
    let expiring = |world: &World, milliseconds: u64| Message {
        expires: Some(world.now + Duration::from_millis(milliseconds)),
        ..message(0)
    };
    let soon = expiring(&world, 1_000);
    let late = expiring(&world, 3_500);
    world.act(|session, now, out| session.set_writable(false, now, out));
    assert_eq!(world.deliver(soon, QoS::AtMostOnce), "");
    assert_eq!(world.deliver(late, QoS::AtMostOnce), "");
    world.pass(1_000);
    let mut out = Vec::new();
    world.session.set_writable(true, world.now, &mut out);
    assert_eq!(out[0], Action::Dropped { why: Dropped::Expired, count: 1 });
    let Action::Send(Outgoing::Publish(packet)) = &out[1] else { panic!("{out:?}") };
    assert_eq!(packet.expiry, NonZeroU32::new(3));
    let expired = expiring(&world, 0);
    assert_eq!(world.deliver(expired, QoS::AtMostOnce), "drop 1 Expired");
}

#[test]
fn what_is_too_large_for_the_client_is_as_if_sent() {
    let max_packet_size = NonZeroU32::new(20);
    let mut world = World::open(Connect { max_packet_size, ..connect(Version::V5) });
    let large = Message { payload: Bytes::from(vec![0; 20]), ..message(1) };
    assert_eq!(world.deliver(large, QoS::AtLeastOnce), "drop 1 TooLarge");
    assert_eq!(world.deliver(message(1), QoS::AtLeastOnce), "PUBLISH@1 1");
}

#[test]
fn answers_to_qos_2_are_unexpected() {
    let [mut v3, mut v5] = World::each();
    assert_eq!(v3.packet(Packet::Pubrec(id(7), Reason::SUCCESS)), "");
    assert_eq!(v5.packet(Packet::Pubrec(id(7), Reason::SUCCESS)), "PUBREL 7 92");
    assert_eq!(v3.packet(Packet::Pubcomp(id(7), Reason::SUCCESS)), "");
    assert_eq!(v5.packet(Packet::Pubcomp(id(7), Reason::SUCCESS)), "");
}

/// A command for the client itself, as its agent.
fn commanded(world: &mut World, granted: QoS) -> String {
    let (agent, id) = ("yyy".into(), uuid::Uuid::nil());
    let command = Some(Box::new(Commanded { agent, id }));
    let delivery = Delivery { command, ..delivery(message(1), granted) };
    world.act(|session, now, out| session.deliver(delivery, now, out))
}

#[test]
fn an_agent_has_a_command_once_it_acknowledges_it() {
    for mut world in World::each() {
        let has = format!("yyy has {}", uuid::Uuid::nil());
        assert_eq!(commanded(&mut world, QoS::AtLeastOnce), "PUBLISH@1 1");
        assert_eq!(world.deliver(message(1), QoS::AtLeastOnce), "PUBLISH@1 2");
        assert_eq!(world.packet(puback(2)), "");
        assert_eq!(world.packet(puback(1)), has);
        assert_eq!(world.packet(puback(1)), "", "told once");
        // At QoS 0 nobody knows.
        assert_eq!(commanded(&mut world, QoS::AtMostOnce), "PUBLISH@0");
        assert_eq!(commanded(&mut world, QoS::AtLeastOnce), "PUBLISH@1 3");
        let refusal = Packet::Puback(id(3), Reason::QUOTA_EXCEEDED);
        assert_eq!(world.packet(refusal), "", "it does not have it");
    }
}
