use super::*;

/// What follows a CONNECT, and then a verdict that accepts it.
fn check(connect: Connect, want: &str) {
    let mut world = World::new();
    let shown = format!("{connect:?}");
    let got = [world.packet(Packet::Connect(Box::new(connect))), world.accept()];
    assert_eq!(got.join(" > "), want, "{shown}");
}

#[test]
fn what_is_accepted_and_what_is_not() {
    let (v3, v5) = (connect(Version::V3), connect(Version::V5));
    check(v3.clone(), "authenticate \"me\" > CONNACK 00");
    check(v5.clone(), "authenticate \"me\" > CONNACK 00");
    let no_id = |connect: &Connect| Connect { client_id: Text::new(), ..connect.clone() };
    check(no_id(&v3), "authenticate \"\" > CONNACK 00");
    check(no_id(&v5), "authenticate \"\" > CONNACK 00");
    let resume = |connect: &Connect| Connect { clean_start: false, ..connect.clone() };
    check(resume(&v3), "authenticate \"me\" > CONNACK 00");
    check(resume(&no_id(&v3)), "CONNACK 85; close Gateway 85 > ");
    check(resume(&no_id(&v5)), "authenticate \"\" > CONNACK 00");
    check(Connect { enhanced_auth: true, ..v5.clone() }, "CONNACK 8c; close Gateway 8c > ");

    let with = |connect: &Connect, change: fn(&mut Will)| {
        let mut will = will();
        will.as_deref_mut().map(change);
        Connect { will, ..connect.clone() }
    };
    check(with(&v3, |_| ()), "authenticate \"me\" > CONNACK 00");
    check(with(&v3, |will| will.retain = true), "CONNACK 9a; close Gateway 9a > ");
    check(with(&v5, |will| will.retain = true), "CONNACK 9a; close Gateway 9a > ");
    check(with(&v5, |will| will.topic = "a/#".into()), "CONNACK 90; close Gateway 90 > ");
    // 3.1.1 has no code for it.
    check(with(&v3, |will| will.topic = "a/#".into()), "close Gateway 90 > ");
}

#[test]
fn a_refused_client_has_no_will() {
    for version in [Version::V3, Version::V5] {
        let mut world = World::new();
        world.packet(Packet::Connect(Box::new(Connect { will: will(), ..connect(version) })));
        let verdict = Verdict::Refused(Reason::BAD_USERNAME_OR_PASSWORD.into());
        let got = world.act(|session, now, out| session.verdict(verdict, now, out));
        assert_eq!(got, "CONNACK 86; close Gateway 86");
    }
}

#[test]
fn connack_tells_the_limits() {
    let accepted = |connect: Connect| {
        let mut world = World::new();
        world.packet(Packet::Connect(Box::new(connect)));
        let mut out = Vec::new();
        let verdict = Verdict::Accepted { client_id: "chosen".into() };
        world.session.verdict(verdict, world.now, &mut out);
        match out.pop() {
            Some(Action::Send(Outgoing::Connack(connack))) => connack,
            other => panic!("{other:?}"),
        }
    };
    let connack = accepted(connect(Version::V5));
    assert_eq!((connack.receive_maximum, connack.topic_alias_max), (id(3), 4));
    assert_eq!(connack.max_packet_size, limits().max_packet_size);
    assert_eq!((connack.assigned_client_id, connack.session_expiry), (None, None));
    let connack =
        accepted(Connect { client_id: Text::new(), session_expiry: 3_600, ..connect(Version::V5) });
    assert_eq!(connack.assigned_client_id.as_deref(), Some("chosen"));
    assert_eq!(connack.session_expiry, Some(0));
}

#[test]
fn the_first_packet_is_connect_and_no_other_is() {
    let mut world = World::new();
    assert_eq!(world.packet(Packet::Pingreq), "close Gateway 82");

    let again = |version| Packet::Connect(Box::new(connect(version)));
    assert_eq!(World::v3().packet(again(Version::V3)), "close Gateway 82");
    assert_eq!(World::v5().packet(again(Version::V5)), "DISCONNECT 82; close Gateway 82");

    let mut world = World::new();
    world.packet(again(Version::V5));
    assert_eq!(world.packet(Packet::Pingreq), "CONNACK 82; close Gateway 82");
}

#[test]
fn faults_are_told_as_the_client_can_understand() {
    let check = |mut world: World, fault: Fault, version: Option<Version>, want: &str| {
        let got = world.act(|session, _, out| session.fault(&fault, version, out));
        assert_eq!(got, want, "{fault}");
    };
    let (v3, v5) = (Some(Version::V3), Some(Version::V5));
    let version = |answer| Fault::UnsupportedVersion { level: 9, answer };
    let malformed = || Fault::Invalid { reason: Reason::MALFORMED_PACKET, text: "x" };
    let no_id = Fault::Invalid { reason: Reason::CLIENT_IDENTIFIER_NOT_VALID, text: "x" };
    let too_large = || Fault::TooLarge { size: 9, limit: 8 };
    check(World::new(), Fault::NotMqtt, None, "close Gateway 82");
    check(World::new(), version(Version::V3), v3, "CONNACK 84; close Gateway 84");
    check(World::new(), version(Version::V5), v5, "CONNACK 84; close Gateway 84");
    check(World::new(), malformed(), v3, "close Gateway 81");
    check(World::new(), malformed(), v5, "CONNACK 81; close Gateway 81");
    check(World::new(), no_id, v3, "CONNACK 85; close Gateway 85");
    check(World::v3(), malformed(), v3, "close Gateway 81");
    check(World::v5(), malformed(), v5, "DISCONNECT 81; close Gateway 81");
    check(World::v3(), too_large(), v3, "close Gateway 95");
    check(World::v5(), too_large(), v5, "DISCONNECT 95; close Gateway 95");
    check(World::with_will(Version::V3), malformed(), v3, "close Gateway 81 +will");
}
