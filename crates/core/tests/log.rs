//! A log on a simulated machine where nothing goes wrong.

mod support;

use ringbolt_disk::sim::Sim;
use support::{Log, options};

#[test]
fn what_was_appended_is_there_after_a_close() {
    let sim = Sim::new(1);
    let mut log = Log::open(&sim, options()).expect("opens");
    assert!(log.recovery().created);
    for lsn in 1..=100 {
        log.append(lsn, &vec![lsn as u8; 3000]).expect("appends");
    }
    assert_eq!(log.read(1).expect("reads").len(), 100);
    log.close().expect("closes");
    let log = Log::open(&sim, options()).expect("opens");
    assert!(log.recovery().clean_shutdown);
    assert_eq!(log.recovery().records, 100);
    let records = log.read(1).expect("reads");
    assert_eq!(records.len(), 100);
    assert_eq!(records[49], vec![50; 3000]);
}
