//! A batch of the worker: from bodies to what PostgreSQL is sent, in its steps and as a whole.

use std::collections::HashMap;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box, black_box_drop};
use platziverse_protocol::record::{Record, RecordError};
use platziverse_store::Sighting;
use platziverse_store::batch::Batch;
use platziverse_worker::judge::{self, Verdict};

use crate::reports::{Fleet, GATEWAY};

/// What a worker takes at once under load: bodies of this many lines.
const BODIES: usize = 10;
const LINES: usize = 100;
/// Metrics of each message.
const METRICS: [usize; 2] = [2, 10];

type Decoded<'a> = Vec<(&'a [u8], Result<Record<'a>, RecordError>)>;

/// Bodies as they are delivered.
struct Delivered(Vec<Vec<u8>>);

impl Delivered {
    fn new(metrics: usize) -> Self {
        let mut fleet = Fleet::new(metrics);
        Self((0..BODIES).map(|_| fleet.body(LINES)).collect())
    }

    fn decode(&self) -> Vec<Decoded<'_>> {
        self.0.iter().map(|body| judge::decode(body)).collect()
    }

    fn counted<'a, 'b>(&self, bencher: Bencher<'a, 'b>) -> Bencher<'a, 'b> {
        let bytes: usize = self.0.iter().map(Vec::len).sum();
        bencher.counter(ItemsCount::new(BODIES * LINES)).counter(BytesCount::new(bytes))
    }
}

/// The sightings in what was decoded.
fn sightings<'a>(decoded: &'a [Decoded<'a>]) -> Vec<Sighting<'a>> {
    let mut sightings = Vec::new();
    for (line, record) in decoded.iter().flatten() {
        match judge::judge(line, record, GATEWAY) {
            Verdict::Store(sighting) => sightings.push(sighting),
            Verdict::Reject(rejection) => panic!("{rejection:?}"),
        }
    }
    sightings
}

/// What a writer remembers of these agents.
fn agent_ids(sightings: &[Sighting<'_>]) -> HashMap<Box<str>, i64> {
    let uuids = sightings.iter().map(|sighting| sighting.event.uuid().as_str().into());
    uuids.zip(1..).collect()
}

/// Lines to records.
#[divan::bench(args = METRICS)]
fn decode(bencher: Bencher<'_, '_>, metrics: usize) {
    let delivered = Delivered::new(metrics);
    delivered.counted(bencher).bench(|| black_box_drop(black_box(&delivered).decode()));
}

/// Records to sightings.
#[divan::bench(args = METRICS)]
fn judge(bencher: Bencher<'_, '_>, metrics: usize) {
    let delivered = Delivered::new(metrics);
    let decoded = delivered.decode();
    delivered.counted(bencher).bench(|| black_box_drop(sightings(black_box(&decoded))));
}

/// Sightings to one row for each agent, and messages in order.
#[divan::bench(args = METRICS)]
fn reduce(bencher: Bencher<'_, '_>, metrics: usize) {
    let delivered = Delivered::new(metrics);
    let decoded = delivered.decode();
    let sightings = sightings(&decoded);
    delivered.counted(bencher).bench(|| black_box_drop(Batch::of(black_box(&sightings))));
}

/// Rows of agents to the columns of their upsert.
#[divan::bench]
fn agent_columns(bencher: Bencher<'_, '_>) {
    let delivered = Delivered::new(1);
    let decoded = delivered.decode();
    let sightings = sightings(&decoded);
    let batch = Batch::of(&sightings);
    bencher
        .counter(ItemsCount::new(sightings.len()))
        .bench(|| black_box_drop(black_box(&batch).agent_columns()));
}

/// Messages, each with its agent's id found, to the bytes of a COPY.
#[divan::bench(args = METRICS)]
fn metric_chunks(bencher: Bencher<'_, '_>, metrics: usize) {
    let delivered = Delivered::new(metrics);
    let decoded = delivered.decode();
    let sightings = sightings(&decoded);
    let (mut batch, ids) = (Batch::of(&sightings), agent_ids(&sightings));
    delivered.counted(bencher).bench_local(|| copied(black_box(&mut batch), &ids));
}

/// Messages to the columns of the INSERT that follows a COPY which met a duplicate.
#[divan::bench(args = METRICS)]
fn metric_columns(bencher: Bencher<'_, '_>, metrics: usize) {
    let delivered = Delivered::new(metrics);
    let decoded = delivered.decode();
    let sightings = sightings(&decoded);
    let batch = Batch::of(&sightings);
    delivered.counted(bencher).bench(|| black_box_drop(black_box(&batch).metric_columns()));
}

/// All that a batch costs beside the database, where nothing is new and nothing is refused.
#[divan::bench(args = METRICS)]
fn whole(bencher: Bencher<'_, '_>, metrics: usize) {
    let delivered = Delivered::new(metrics);
    let ids = agent_ids(&sightings(&delivered.decode()));
    delivered.counted(bencher).bench(|| {
        let decoded = black_box(&delivered).decode();
        let sightings = sightings(&decoded);
        let mut batch = Batch::of(&sightings);
        black_box(copied(&mut batch, &ids));
        black_box_drop(batch.agent_columns());
    });
}

/// How many bytes the COPY has.
fn copied(batch: &mut Batch<'_>, ids: &HashMap<Box<str>, i64>) -> usize {
    assert!(batch.assign(|uuid| ids.get(uuid).copied()), "an agent without an id");
    batch.metric_chunks().map(|chunk| black_box(chunk).len()).sum()
}
