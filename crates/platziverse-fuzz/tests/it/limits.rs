//! What every accepted agent, message and time obeys, said independently of the parser.

use platziverse_protocol::agent::{Agent, AgentMessage, AgentUuid, Metric};
use platziverse_protocol::event::AgentEvent;
use platziverse_protocol::time::Timestamp;
use proptest::test_runner::TestCaseResult;
use proptest::{prop_assert, prop_assert_eq};

fn name(text: &str, least: usize) -> TestCaseResult {
    prop_assert!((least..=255).contains(&text.len()), "a name of {} bytes: {text:?}", text.len());
    prop_assert!(!text.contains('\0'), "a name with U+0000: {text:?}");
    Ok(())
}

fn uuid(uuid: &AgentUuid<'_>) -> TestCaseResult {
    name(uuid.as_str(), 1)
}

fn agent(agent: &Agent<'_>) -> TestCaseResult {
    uuid(&agent.uuid)?;
    for text in [&agent.username, &agent.name, &agent.hostname] {
        name(text, 0)?;
    }
    prop_assert!(agent.pid >= 0, "the pid {}", agent.pid);
    Ok(())
}

/// Whether these are the same, bit by bit.
pub(crate) fn same(one: Option<f64>, other: Option<f64>) -> bool {
    one.map(f64::to_bits) == other.map(f64::to_bits)
}

fn metric(metric: &Metric<'_>) -> TestCaseResult {
    name(&metric.kind, 1)?;
    prop_assert!(metric.number.is_none_or(f64::is_finite), "the number {:?}", metric.number);
    let Some(text) = &metric.text else {
        prop_assert!(metric.number.is_some(), "a metric without a value");
        return Ok(());
    };
    prop_assert!(text.len() <= 4096 && !text.contains('\0'), "the text {text:?}");
    let read = text.parse::<f64>().ok().filter(|number| number.is_finite());
    // A boolean counts as a number, the word for it does not.
    let boolean = match &**text {
        "true" => Some(1.0),
        "false" => Some(0.0),
        _ => read,
    };
    prop_assert!(same(metric.number, read) || same(metric.number, boolean), "{metric:?}");
    Ok(())
}

/// A time that RFC 3339 can show and PostgreSQL can store.
pub(crate) fn time(time: Timestamp) -> TestCaseResult {
    let again: Result<Timestamp, _> = time.to_string().parse();
    prop_assert_eq!(again, Ok(time), "{} is not read back", time);
    Ok(())
}

pub(crate) fn message(message: &AgentMessage<'_>) -> TestCaseResult {
    agent(&message.agent)?;
    prop_assert!(message.metrics.len() <= 1000, "{} metrics", message.metrics.len());
    message.metrics.iter().try_for_each(metric)?;
    message.timestamp.map_or(Ok(()), time)
}

pub(crate) fn event(event: &AgentEvent<'_>) -> TestCaseResult {
    match event {
        AgentEvent::Message(sent) => message(sent),
        AgentEvent::Connected(connected) => agent(connected),
        AgentEvent::Disconnected(ended) => uuid(ended),
    }
}
