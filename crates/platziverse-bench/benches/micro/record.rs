//! Records: what a gateway puts into AMQP bodies, and what workers and gateways read out of them.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box, black_box_drop};
use platziverse_protocol::record::{self, Record};

use crate::reports::Fleet;

/// Lines in a body.
const LINES: [usize; 2] = [1, 100];
const METRICS: usize = 2;

/// Each line has a buffer of its own, as every client's publish has.
#[divan::bench(args = LINES)]
fn encode(bencher: Bencher<'_, '_>, lines: usize) {
    let mut fleet = Fleet::new(METRICS);
    let reports: Vec<_> = (0..lines).map(|_| fleet.report()).collect();
    let bytes = Fleet::new(METRICS).body(lines).len();
    counted(bencher, lines, bytes).bench(|| {
        for report in black_box(&reports) {
            let mut line = Vec::new();
            report.record().encode_line(&mut line);
            black_box_drop(line);
        }
    });
}

/// A body is taken apart, and each line becomes a record that borrows from it.
#[divan::bench(args = LINES)]
fn decode(bencher: Bencher<'_, '_>, lines: usize) {
    let body = Fleet::new(METRICS).body(lines);
    let good = record::lines(&body).filter(|line| Record::decode_line(line).is_ok());
    assert_eq!(good.count(), lines);
    counted(bencher, lines, body.len()).bench(|| {
        for line in record::lines(black_box(&body)) {
            black_box_drop(Record::decode_line(line));
        }
    });
}

/// How a worker counts what it takes before it decodes.
#[divan::bench(args = LINES)]
fn count(bencher: Bencher<'_, '_>, lines: usize) {
    let body = Fleet::new(METRICS).body(lines);
    counted(bencher, lines, body.len()).bench(|| record::lines(black_box(&body)).count());
}

fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, lines: usize, bytes: usize) -> Bencher<'a, 'b> {
    bencher.counter(ItemsCount::new(lines)).counter(BytesCount::new(bytes))
}
