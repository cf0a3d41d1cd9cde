//! What is found in a store after a crash, seen through the store itself.

use std::time::Duration;

use ringbolt_core::blob::{Answer, BlobRequest, Layout, Options, Request, Turned};
use ringbolt_core::{Code, Error};
use ringbolt_disk::Buffer;
use ringbolt_disk::sim::Sim;

use crate::model::{Model, NAMES};

const ROOT: &str = "/data/store";
pub(crate) const PARTITIONS: [&str; 2] = ["one", "two"];

/// What each blob holds.
pub(crate) type Found = [Option<Vec<u8>>; NAMES];

pub(crate) fn options(layout: Layout) -> Options {
    Options { layout, lock_timeout: Duration::from_secs(10), ..Options::new(ROOT) }
}

fn partition_of(name: usize) -> usize {
    name % PARTITIONS.len()
}

/// The partition and the name of a blob.
pub(crate) fn place(name: usize) -> (String, Vec<u8>) {
    (PARTITIONS[partition_of(name)].to_owned(), vec![name as u8])
}

/// Open the store and look at all there is; the model judges it.
///
/// # Panics
/// Where it is not what was promised.
pub(crate) fn look(sim: &Sim, model: Option<&Model>) -> Found {
    let mut store = Turned::open(&options(Layout::V1), sim.disk()).expect("what is left opens");
    let mut found: Found = Default::default();
    for (name, found) in found.iter_mut().enumerate() {
        let (partition, bytes) = place(name);
        store.request(1, Request::Open { partition, name: bytes, versions: (0, 0), create: false });
        *found = match answer(&mut store) {
            Ok(Answer::Opened { blob, .. }) => Some(contents(&mut store, blob)),
            Err(error) if matches!(error.code, Code::BlobMissing | Code::BlobPartitionMissing) => None,
            other => panic!("blob {name}: {other:?}"),
        };
        if let Some(model) = model {
            model.expected(name, partition_of).check(name, found.as_deref());
        }
    }
    for (partition, name) in PARTITIONS.iter().enumerate() {
        store.request(1, Request::Scan { partition: (*name).to_owned() });
        let there = (0..NAMES).filter(|&name| partition_of(name) == partition && found[name].is_some());
        let there: Vec<_> = there.map(|name| vec![name as u8]).collect();
        match answer(&mut store) {
            Ok(Answer::Names(names)) => assert_eq!(names, there),
            Err(error) => assert!(error.code == Code::BlobPartitionMissing && there.is_empty(), "{error:?}"),
            Ok(other) => panic!("{other:?}"),
        }
    }
    store.close();
    store.finish();
    assert!(store.is_finished());
    found
}

fn answer(store: &mut Turned) -> Result<Answer, Error> {
    store.finish().pop().expect("one request was made").result
}

fn contents(store: &mut Turned, blob: u32) -> Vec<u8> {
    let length = store.size(blob).expect("it is open") as usize;
    let work =
        BlobRequest::Read { offset: 0, buffer: Buffer::zeroed(length), cached: length.is_multiple_of(2) };
    store.request(1, Request::Blob { blob, work });
    match answer(store) {
        Ok(Answer::Read(buffer)) => buffer.to_vec(),
        other => panic!("{other:?}"),
    }
}
