use super::*;

fn goodbye(reason: Reason) -> Packet {
    Packet::Disconnect(reason, None)
}

#[test]
fn a_goodbye_discards_the_will() {
    for version in [Version::V3, Version::V5] {
        let mut world = World::with_will(version);
        assert_eq!(world.packet(goodbye(Reason::SUCCESS)), "close Client 00");
    }
    let check = |reason: Reason, want: &str| {
        assert_eq!(World::with_will(Version::V5).packet(goodbye(reason)), want);
    };
    check(Reason::DISCONNECT_WITH_WILL, "close Client 04 +will");
    check(Reason::UNSPECIFIED_ERROR, "close Client 80 +will");
}

#[test]
fn any_other_end_publishes_it() {
    let check = |act: fn(&mut Session, &mut Vec<Action>), want: &str, v5: &str| {
        let mut world = World::with_will(Version::V3);
        assert_eq!(world.act(|session, _, out| act(session, out)), want);
        let mut world = World::with_will(Version::V5);
        assert_eq!(world.act(|session, _, out| act(session, out)), format!("{v5}{want}"));
    };
    check(Session::lost, "close Network 80 +will", "");
    check(Session::taken_over, "close Gateway 8e +will", "DISCONNECT 8e; ");
    check(Session::drain, "close Gateway 8b +will", "DISCONNECT 8b; ");
    check(
        |session, out| session.evict(Reason::ADMINISTRATIVE_ACTION.into(), out),
        "close Gateway 98 +will",
        "DISCONNECT 98; ",
    );
}

#[test]
fn a_session_expiry_cannot_be_had_late() {
    let check = |asked: u32, wanted: u32, want: &str| {
        let mut world = World::open(Connect { session_expiry: asked, ..connect(Version::V5) });
        assert_eq!(world.packet(Packet::Disconnect(Reason::SUCCESS, Some(wanted))), want);
    };
    check(0, 0, "close Client 00");
    check(9, 5, "close Client 00");
    check(0, 5, "DISCONNECT 82; close Gateway 82");
}

#[test]
fn auth_has_no_place() {
    assert_eq!(World::v5().packet(Packet::Auth), "DISCONNECT 82; close Gateway 82");
}

#[test]
fn after_the_end_nothing_happens() {
    for mut world in World::each() {
        world.publish(publish("a", 1, 1));
        world.packet(goodbye(Reason::SUCCESS));
        assert_eq!(world.confirm(0), "");
        assert_eq!(world.packet(Packet::Pingreq), "");
        assert_eq!(world.act(|session, _, out| session.lost(out)), "");
        assert_eq!(world.act(|session, _, out| session.taken_over(out)), "");
        assert_eq!(world.act(|session, _, out| session.drain(out)), "");
        assert_eq!(world.accept(), "");
        assert_eq!(world.pass(1_000_000), "");
        assert_eq!(world.session.next_deadline(), None);
        assert_eq!(world.deliver(message(1), QoS::AtLeastOnce), "drop 1 Closed");
    }
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let mut world = World::new();
    assert_eq!(world.session.next_deadline(), Some(world.now + limits().connect_timeout));
    assert_eq!(world.pass(4_999), "");
    assert_eq!(world.pass(1), "close Gateway 80");

    // Checking credentials is part of it; a client that is let in begins its keep-alive.
    let mut world = World::new();
    world.packet(Packet::Connect(Box::new(connect(Version::V3))));
    assert_eq!(world.pass(4_999), "");
    assert_eq!(world.accept(), "CONNACK 00");
    assert_eq!(world.pass(89_999), "");
    for version in [Version::V3, Version::V5] {
        let mut world = World::new();
        world.packet(Packet::Connect(Box::new(connect(version))));
        assert_eq!(world.pass(5_000), "CONNACK 89; close Gateway 89");
    }
}

#[test]
fn keep_alive_is_one_and_a_half_times() {
    let [mut v3, mut v5] = World::each();
    assert_eq!(v3.pass(89_999), "");
    assert_eq!(v3.packet(Packet::Pingreq), "PINGRESP");
    assert_eq!(v3.pass(89_999), "");
    assert_eq!(v3.pass(1), "close Gateway 8d");
    assert_eq!(v5.pass(90_000), "DISCONNECT 8d; close Gateway 8d");

    let mut world = World::open(Connect { keep_alive: 0, ..connect(Version::V5) });
    assert_eq!(world.session.next_deadline(), None);
    assert_eq!(world.pass(1_000_000_000), "");
}

#[test]
fn keep_alive_stands_still_while_nothing_is_read() {
    for mut world in World::each() {
        assert_eq!(world.pass(60_000), "");
        world.session.set_reading(false, world.now);
        assert_eq!(world.session.next_deadline(), None);
        assert_eq!(world.pass(500_000), "");
        world.session.set_reading(false, world.now);
        world.session.set_reading(true, world.now);
        assert_eq!(world.session.next_deadline(), Some(world.now + Duration::from_secs(30)));
        assert_eq!(world.pass(29_999), "");
        assert!(world.pass(1).ends_with("close Gateway 8d"));
    }
}

#[test]
fn reading_may_begin_after_the_verdict() {
    let mut world = World::new();
    world.packet(Packet::Connect(Box::new(connect(Version::V3))));
    world.session.set_reading(false, world.now);
    world.pass(4_000);
    world.accept();
    world.pass(10_000);
    world.session.set_reading(true, world.now);
    assert_eq!(world.session.next_deadline(), Some(world.now + Duration::from_secs(90)));
}

#[test]
fn draining_waits_for_the_answers() {
    let ends = ["PUBACK 1 00; close Gateway 8b", "PUBACK 1 00; DISCONNECT 8b; close Gateway 8b"];
    for (mut world, end) in World::each().into_iter().zip(ends) {
        world.publish(publish("a", 1, 1));
        world.publish(publish("b", 0, 0));
        assert_eq!(world.act(|session, _, out| session.drain(out)), "");
        assert!(!world.session.may_read());
        assert_eq!(world.confirm(1), "");
        assert_eq!(world.confirm(0), end);
    }
    let mut world = World::v5();
    world.publish(publish("a", 1, 1));
    world.act(|session, _, out| session.drain(out));
    let failed = world.receipt(0, Receipt::Failed);
    assert_eq!(failed, "DISCONNECT 8b; close Gateway 8b");
}

#[test]
fn draining_takes_nobody_new() {
    let mut world = World::new();
    assert_eq!(world.act(|session, _, out| session.drain(out)), "close Gateway 88");
    let mut world = World::new();
    world.packet(Packet::Connect(Box::new(connect(Version::V3))));
    assert_eq!(world.act(|session, _, out| session.drain(out)), "");
    assert_eq!(world.accept(), "CONNACK 88; close Gateway 88");
}

#[test]
fn an_idle_session_is_small() {
    let size = size_of::<Session>();
    assert!(size <= 512, "{size} bytes");
}
