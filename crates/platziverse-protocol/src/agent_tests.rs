use super::*;

const AGENT: &str = r#"{"uuid":"yyy","username":"platzi","name":"p","hostname":"h","pid":10}"#;

fn message(metrics: &str, more: &str) -> String {
    format!(r#"{{"agent":{AGENT},"metrics":[{metrics}]{more}}}"#)
}

#[test]
fn values() {
    let check = |value: &str, number: Option<f64>, text: Option<&str>| {
        let payload = message(&format!(r#"{{"type":"t","value":{value}}}"#), "");
        let parsed = AgentMessage::parse(payload.as_bytes()).unwrap();
        assert_eq!(parsed.metrics[0].number, number, "{value}");
        assert_eq!(parsed.metrics[0].text.as_deref(), text, "{value}");
    };
    check("33", Some(33.0), None);
    check("-1.5e3", Some(-1500.0), None);
    check("18446744073709551615", Some(18_446_744_073_709_551_615.0), None);
    check(r#""1001""#, Some(1001.0), Some("1001"));
    check(r#""33.5""#, Some(33.5), Some("33.5"));
    check(r#""hot""#, None, Some("hot"));
    check(r#""""#, None, Some(""));
    check(r#""NaN""#, None, Some("NaN"));
    check(r#""inf""#, None, Some("inf"));
    check("true", Some(1.0), Some("true"));
    check("false", Some(0.0), Some("false"));
    check(r#""a\"b""#, None, Some("a\"b"));
    check("-0", Some(0.0), None);
    check("-0.0", Some(0.0), None);
    // Texts are numbers only as JSON, SQL and Rust all read them: no white space, no hexadecimal.
    check(r#"" 1""#, None, Some(" 1"));
    check(r#""1e3""#, Some(1000.0), Some("1e3"));
    check(r#""1e400""#, None, Some("1e400"));
    check(r#""0x10""#, None, Some("0x10"));
}

#[test]
fn odd_json() {
    let check =
        |payload: &str, want: Result<(), &str>| match AgentMessage::parse(payload.as_bytes()) {
            Ok(_) => assert_eq!(want, Ok(()), "{payload:.80}"),
            Err(error) => {
                let says = want.expect_err("it is refused");
                assert!(error.to_string().contains(says), "{payload:.80}: {error}");
            }
        };
    check(&message(r#"{"type":"t","value":1,"value":2}"#, ""), Err("duplicate field `value`"));
    check(&message("", r#","metrics":[]"#), Err("duplicate field `metrics`"));
    check(&message("", r#","other":1,"other":2"#), Ok(()));
    let nested = |depth: usize| format!(r#","other":{}{}"#, "[".repeat(depth), "]".repeat(depth));
    // What is ignored is skipped without recursion.
    check(&message("", &nested(100_000)), Ok(()));
}

#[test]
fn refusals() {
    let check = |payload: &str, reason: Reason, says: &str| {
        let error = AgentMessage::parse(payload.as_bytes()).unwrap_err();
        assert_eq!(error.reason(), reason, "{payload:.80}");
        assert!(error.to_string().contains(says), "{payload:.80}: {error} lacks {says}");
    };
    let metric = |value: &str| message(&format!(r#"{{"type":"t","value":{value}}}"#), "");
    let agent = |change: &str, to: &str| {
        format!(r#"{{"agent":{},"metrics":[]}}"#, AGENT.replace(change, to))
    };
    use Reason::{InvalidJson, InvalidPayload, PayloadTooLarge};
    check("", InvalidJson, "not JSON");
    check("hello", InvalidJson, "not JSON");
    check("{", InvalidJson, "not JSON");
    check("[]", InvalidPayload, "wrong shape");
    check("7", InvalidPayload, "expected an object");
    check(r#"{"agent":1}"#, InvalidPayload, "expected an object");
    check(&message("1", ""), InvalidPayload, "expected an object");
    // What would fit in order is no object all the same.
    check(&format!("[{AGENT},[],null,null]"), InvalidPayload, "expected an object");
    check(r#"{"agent":["u","n","n","h",1],"metrics":[]}"#, InvalidPayload, "expected an object");
    check(&message(r#"["m",1]"#, ""), InvalidPayload, "expected an object");
    check("{}", InvalidPayload, "missing field `agent`");
    check(r#"{"agent":{},"metrics":[]}"#, InvalidPayload, "missing field `uuid`");
    check(&metric("NaN"), InvalidJson, "not JSON");
    check(&metric("1e999"), InvalidJson, "out of range");
    check(&metric("null"), InvalidPayload, "a number, a boolean or a string");
    check(&metric("[1]"), InvalidPayload, "a number, a boolean or a string");
    check(&metric(r#""a\u0000b""#), InvalidPayload, "U+0000");
    check(&message("", r#","extra":"\u0000""#), InvalidPayload, "U+0000");
    check(&metric(&format!("{:?}", "x".repeat(4097))), InvalidPayload, "4097");
    check(&message(r#"{"type":"","value":1}"#, ""), InvalidPayload, "metrics[].type");
    check(&agent("yyy", ""), InvalidPayload, "agent.uuid has 0 bytes");
    check(&agent("yyy", &"x".repeat(256)), InvalidPayload, "agent.uuid has 256 bytes");
    check(&agent("platzi", &"x".repeat(256)), InvalidPayload, "agent.username");
    check(&agent("10", "-1"), InvalidPayload, "agent.pid is -1");
    check(&agent("10", "2147483648"), InvalidPayload, "agent.pid");
    check(&agent("10", "\"10\""), InvalidPayload, "wrong shape");
    check(&message("", r#","id":"nonsense""#), InvalidPayload, "wrong shape");
    check(&message("", r#","timestamp":"noon""#), InvalidPayload, "RFC 3339");
    check(&message("", r#","timestamp":9223372036854775807"#), InvalidPayload, "years");
    check(&message("", r#","timestamp":1e300"#), InvalidPayload, "years");
    check(&message("", r#","timestamp":-1e300"#), InvalidPayload, "years");
    check(&message("", r#","timestamp":1e999"#), InvalidJson, "out of range");
    let many = vec![r#"{"type":"t","value":1}"#; 1001].join(",");
    check(&message(&many, ""), InvalidPayload, "1001 metrics");
    check(&" ".repeat(PAYLOAD_BYTES_MAX + 1), PayloadTooLarge, "262145");
    assert_eq!(AgentMessage::parse(b"\"\xff\"").unwrap_err(), PayloadError::NotUtf8);
}

#[test]
fn optional_fields() {
    let id = "01990000-0000-7000-8000-000000000000";
    let payload = message("", &format!(r#","timestamp":1780000000000,"id":"{id}","other":[1]"#));
    let parsed = AgentMessage::parse(payload.as_bytes()).unwrap();
    assert_eq!(parsed.timestamp.map(Timestamp::as_millis), Some(1_780_000_000_000));
    assert_eq!(parsed.id.map(|id| id.to_string()).as_deref(), Some(id));
    for (written, millis) in [
        ("1780000000000.0", 1_780_000_000_000),
        ("1.78e12", 1_780_000_000_000),
        ("1780000000000.9", 1_780_000_000_000),
        ("-0.5", -1),
        ("-0", 0),
    ] {
        let payload = message("", &format!(r#","timestamp":{written}"#));
        let parsed = AgentMessage::parse(payload.as_bytes()).unwrap();
        assert_eq!(parsed.timestamp.map(Timestamp::as_millis), Some(millis), "{written}");
    }
    let payload = message("", r#","timestamp":"1970-01-01T00:00:00.5Z""#);
    let parsed = AgentMessage::parse(payload.as_bytes()).unwrap();
    assert_eq!(parsed.timestamp.map(Timestamp::as_millis), Some(500));
    // An escaped backslash before u0000 is no NUL.
    let payload = message(r#"{"type":"t","value":"\\u0000"}"#, "");
    assert!(AgentMessage::parse(payload.as_bytes()).is_ok());
}

#[test]
fn time_ahead() {
    let received = Timestamp::from_millis(1_000).unwrap();
    let check = |timestamp: i64, want: bool| {
        let payload = message("", &format!(r#","timestamp":{timestamp}"#));
        let parsed = AgentMessage::parse(payload.as_bytes()).unwrap();
        assert_eq!(parsed.check_time(received).is_ok(), want, "{timestamp}");
    };
    check(-5, true);
    check(1_000 + AHEAD_MILLIS_MAX, true);
    check(1_001 + AHEAD_MILLIS_MAX, false);
}
