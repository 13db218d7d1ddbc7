//! Lists of durations as lists of text, `["1s", "10s"]`: for serde's `with`.

use std::time::Duration;

use humantime_serde::Serde;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(
    spans: &[Duration],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(spans.iter().map(Serde::from))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Duration>, D::Error> {
    let spans = Vec::<Serde<Duration>>::deserialize(deserializer)?;
    Ok(spans.into_iter().map(Serde::into_inner).collect())
}
