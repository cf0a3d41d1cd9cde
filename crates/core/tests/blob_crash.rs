//! Crash runs of a blob store: on a simulated machine it is worked, broken and cut off at any step, from a seed, over
//! several generations. What was promised is there: a blob whose `open` resolved, with its name; every byte that was
//! written before a `sync` that resolved, unless a later call may have changed it; and what was removed is gone.
//!
//! `RINGBOLT_SEEDS=10000 cargo test -p ringbolt-core --release --features planted --test blob_crash` runs more of them,
//! `RINGBOLT_SEED=17` a single one.

#![cfg(feature = "planted")]

#[path = "blob/look.rs"]
mod look;
#[path = "blob/model.rs"]
mod model;
mod planting;

use std::collections::BTreeMap;

use look::{PARTITIONS, look, options, place};
use model::{Model, Op};
use planting::{Plant, planted, publish};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ringbolt_core::blob::{Answer, BlobRequest, Finished, Layout, Request, Turned};
use ringbolt_core::planted::Bug;
use ringbolt_core::{Code, Error};
use ringbolt_disk::sim::{Call, Fault, Lie, Sim};
use ringbolt_disk::{Buffer, OpenOptions};

/// How a generation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    PowerCut,
    Kill,
    Close,
}

/// One seed: some generations on one disk. Panics where a promise is broken.
fn crash_run(seed: u64) {
    crash_run_with(seed, &|_| {});
}

/// The same on a disk that `lie` was told about first.
fn crash_run_with(seed: u64, lie: &dyn Fn(&Sim)) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut sim = Sim::new(seed);
    lie(&sim);
    let mut model = Model::default();
    for generation in 0..rng.random_range(2..5) {
        let end = [End::PowerCut, End::PowerCut, End::Kill, End::Close][rng.random_range(0..4)];
        sim.set_marker(0);
        let cut = sim.steps()
            + if rng.random_bool(0.3) { rng.random_range(1..40) } else { rng.random_range(1..400) };
        match end {
            End::PowerCut => sim.crash_at(cut),
            End::Kill => sim.kill_at(cut),
            End::Close => {}
        }
        let is_struck = rng.random_bool(0.3);
        if is_struck {
            plant_fault(&sim, &mut rng);
        }
        let is_paged = rng.random_bool(0.3);
        let layout = if !is_paged && rng.random() { Layout::V0 } else { Layout::V1 };
        if let Ok(store) = Turned::open(&options(layout), sim.disk()) {
            Worker::new(&sim, store, &mut model, generation, (is_paged, !is_struck))
                .work(&mut rng, end == End::Close);
        }
        let after = match end {
            End::PowerCut => sim.take_image().unwrap_or_else(|| sim.image()).boot(rng.random()),
            End::Kill => sim.take_kill().unwrap_or_else(|| {
                sim.kill();
                sim.clone()
            }),
            End::Close => {
                sim.kill();
                sim.clone()
            }
        };
        sim = after;
        sim.crash_at(u64::MAX);
        sim.kill_at(u64::MAX);
        sim.clear_faults();
        model.cut(sim.marker(), end == End::PowerCut);
        if std::env::var_os("RINGBOLT_SEED").is_some() {
            eprintln!("generation {generation}: {end:?} at step {cut}");
            model.events().iter().for_each(|event| eprintln!("  {event:?}"));
        }
        let found = look(&sim, Some(&model));
        // What was shown was made durable first. But after a flush that failed the page cache shows bytes that no flush
        // will ever write: then the next generation builds on what the disk has.
        sim = sim.power_cut(rng.random());
        let kept = look(&sim, None);
        assert!(is_struck || kept == found, "what was shown is gone");
        model.found(kept);
    }
}

fn plant_fault(sim: &Sim, rng: &mut SmallRng) {
    let fault = match rng.random_range(0..8) {
        0 | 1 => Fault::new(Call::Sync),
        2 => Fault::new(Call::Write),
        3 => Fault::new(Call::SyncDir),
        4 => Fault::new(Call::Read),
        5 => Fault::new(Call::SetLen),
        6 => Fault::new(Call::Remove),
        _ => Fault::short_write(),
    };
    sim.fail(fault.skip(rng.random_range(0..30)));
}

/// Works a store, and keeps the model told.
struct Worker<'a> {
    sim: &'a Sim,
    store: Turned,
    model: &'a mut Model,
    /// The handles, by the number the store gave: the blob's name, and whether it is closed.
    handles: BTreeMap<u32, usize>,
    pending: BTreeMap<u32, Op>,
    last_id: u32,
    salt: u8,
    /// Whether it mostly writes whole pages durably, many at a time: those pass by the page cache.
    is_paged: bool,
    /// Whether no call was made to fail.
    is_sound: bool,
}

impl<'a> Worker<'a> {
    fn new(
        sim: &'a Sim,
        store: Turned,
        model: &'a mut Model,
        generation: u64,
        (is_paged, is_sound): (bool, bool),
    ) -> Self {
        Self {
            sim,
            store,
            model,
            handles: BTreeMap::new(),
            pending: BTreeMap::new(),
            last_id: 0,
            salt: generation as u8 * 50,
            is_paged,
            is_sound,
        }
    }

    fn work(mut self, rng: &mut SmallRng, close: bool) {
        for _ in 0..rng.random_range(5..60) {
            self.ask(rng);
            if rng.random_bool(if self.is_paged { 0.3 } else { 0.6 }) {
                for _ in 0..rng.random_range(1..20) {
                    self.turn();
                }
            }
        }
        if close {
            self.store.close();
        }
        for _ in 0..2000 {
            if self.pending.is_empty() {
                break;
            }
            self.turn();
        }
        assert!(self.pending.is_empty() || !self.is_alive(), "every request is answered: {:?}", self.pending);
        assert!(!close || self.store.is_finished() || !self.is_alive());
    }

    fn is_alive(&self) -> bool {
        self.sim.take_image().is_none()
    }

    fn ask(&mut self, rng: &mut SmallRng) {
        let name = rng.random_range(0..model::NAMES);
        let handle = self.handles.iter().map(|(&handle, _)| handle).min_by_key(|_| rng.random::<u32>());
        let (op, request) = match (rng.random_range(0..20), handle) {
            (0..5, _) | (_, None) => {
                let (partition, bytes) = place(name);
                let request = Request::Open { partition, name: bytes, versions: (0, 0), create: true };
                (Op::Open { name }, request)
            }
            (5, _) => {
                let (partition, bytes) = place(name);
                (Op::Remove { name }, Request::Remove { partition, name: Some(bytes) })
            }
            (6, _) if rng.random_bool(0.3) => {
                let partition = rng.random_range(0..PARTITIONS.len());
                let request = Request::Remove { partition: PARTITIONS[partition].to_owned(), name: None };
                (Op::RemovePartition { partition }, request)
            }
            (7, Some(blob)) => (Op::Close { handle: blob }, Request::Blob { blob, work: BlobRequest::Close }),
            (8..11, Some(blob)) => {
                (Op::Sync { handle: blob }, Request::Blob { blob, work: BlobRequest::Sync })
            }
            (11, Some(blob)) => {
                let length = rng.random_range(0..3000);
                (
                    Op::Resize { handle: blob, length },
                    Request::Blob { blob, work: BlobRequest::Resize { length } },
                )
            }
            (_, Some(blob)) => {
                self.salt = self.salt.wrapping_add(1).max(1);
                let (offset, length, sync) = if self.is_paged && rng.random_bool(0.8) {
                    let pages = rng.random_range(1..3);
                    (rng.random_range(0..3_u64) * 4096, pages * 4096, rng.random_bool(0.9))
                } else {
                    (rng.random_range(0..2500_u64), rng.random_range(1..1500), rng.random_bool(0.3))
                };
                let bytes = vec![self.salt; length];
                let buffer = Buffer::copy_of(&bytes);
                let work = BlobRequest::Write { offset, buffer, sync, cached: rng.random() };
                let op = Op::Write { handle: blob, offset, length: length as u64, byte: self.salt, sync };
                (op, Request::Blob { blob, work })
            }
        };
        if let Op::Close { handle } = op {
            self.handles.remove(&handle);
        }
        self.last_id += 1;
        self.pending.insert(self.last_id, op.clone());
        // Told before it is sent: what a crash in the midst of it may show.
        let marker = self.model.asked(self.last_id, op);
        self.sim.set_marker(marker);
        self.store.request(self.last_id, request);
    }

    fn turn(&mut self) {
        let mut finished = Vec::new();
        self.store.turn(&mut finished);
        for Finished { id, result } in finished {
            let op = self.pending.remove(&id).expect("answered once");
            if let (Op::Open { name }, Ok(Answer::Opened { blob, .. })) = (&op, &result) {
                self.handles.insert(*blob, *name);
                self.model.opened(*blob, *name);
            }
            if let Err(error) = &result {
                assert!(
                    !matches!(error.code, Code::BlobCorrupt | Code::BlobVersionMismatch | Code::BlobClosed),
                    "{error:?}"
                );
                assert!(error.code != Code::BlobSyncFailed || !self.is_sound, "a flush failed: {error:?}");
            }
            let marker = self.model.answered(id, result.is_ok());
            self.sim.set_marker(marker);
        }
    }
}

fn crash_runs(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        // The seed of a run that fails is the last one printed.
        eprintln!("seed {seed}");
        crash_run(seed);
    }
}

#[test]
fn what_was_promised_survives_every_crash() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    match number("RINGBOLT_SEED") {
        Some(seed) => crash_run(seed),
        None => crash_runs(0..number("RINGBOLT_SEEDS").unwrap_or(500)),
    }
}

#[test]
#[ignore = "a minute: ten thousand seeds"]
fn ten_thousand_seeded_crash_runs_break_no_promise() {
    let began = std::time::Instant::now();
    crash_runs(0..10_000);
    println!("10,000 seeds in {:?}: 0 promises broken", began.elapsed());
}

// Bugs on purpose: the runs that hold are run again, and must fail.

planted! {
    answering_for_a_blob_without_its_header_is_caught:
        Plant::Log(Bug::HeaderWithoutSync) => crash_runs_hold, "";
    answering_for_a_blob_without_its_name_is_caught:
        Plant::Log(Bug::NameWithoutSync) => crash_runs_hold, "is gone";
    answering_for_a_blob_without_its_partition_is_caught:
        Plant::Log(Bug::PartitionWithoutSync) => crash_runs_hold, "is gone";
    answering_a_sync_before_its_flush_is_caught:
        Plant::Log(Bug::SyncBeforeFlush) => crash_runs_hold, "expected";
    taking_a_flush_for_later_changes_is_caught:
        Plant::Log(Bug::FlushProvesLaterChanges) => crash_runs_hold, "expected";
    forgetting_a_failed_flush_is_caught:
        Plant::Log(Bug::ForgetFailedFlush) => a_failed_flush_is_final, "is not what was synced";
    forgetting_what_was_left_unflushed_is_caught:
        Plant::Log(Bug::ForgetUnflushed) => crash_runs_hold, "expected";
    trusting_what_a_failed_creation_left_is_caught:
        Plant::Log(Bug::TrustUnsettled) => what_a_failed_creation_left_is_made_whole, "is not what was synced";
    making_changes_in_any_order_is_caught:
        Plant::Log(Bug::ChangesInAnyOrder) => crash_runs_hold, "expected";
    answering_a_write_past_the_cache_before_its_flush_is_caught:
        Plant::Log(Bug::DirectBeforeFlush) => crash_runs_hold, "expected";
    changing_pages_beneath_a_write_past_the_cache_is_caught:
        Plant::Log(Bug::DirectBesideChanges) => crash_runs_hold, "";
    writing_past_the_cache_in_any_order_is_caught:
        Plant::Log(Bug::DirectOverlapping) => crash_runs_hold, "expected";
    writing_past_the_cache_without_the_lock_is_caught:
        Plant::Log(Bug::DirectUnlocked) => a_dead_owner_writes_over_nothing, "a blob was free";
    answering_a_removal_before_its_sync_is_caught:
        Plant::Log(Bug::RemovalWithoutSync) => crash_runs_hold, "is there";
    opening_a_store_without_its_lock_is_caught:
        Plant::Log(Bug::NoStoreLock) => a_store_is_one_owners, "is opened twice";
    settling_a_store_that_nobody_looked_through_is_caught:
        Plant::Log(Bug::SettleUnseen) => what_a_failed_creation_left_is_remembered, "is not what was synced";
    skipping_the_flush_is_caught:
        Plant::Disk(Lie::SkipSync) => crash_runs_hold, "";
    skipping_the_directory_sync_is_caught:
        Plant::Disk(Lie::SkipDirectorySync) => crash_runs_hold, "blob ";
    ignoring_a_short_write_is_caught:
        Plant::Disk(Lie::IgnoreShortWrite) => crash_runs_hold, "expected";
}

fn crash_runs_hold(lie: &dyn Fn(&Sim)) {
    for seed in 0..600 {
        crash_run_with(seed, lie);
    }
}

/// A store in which one blob is worked with, awaiting each request.
struct Desk(Turned);

impl Desk {
    fn open(sim: &Sim) -> Self {
        Self(Turned::open(&options(Layout::V1), sim.disk()).expect("opens"))
    }

    fn ask(&mut self, request: Request) -> Result<Answer, Error> {
        self.0.request(1, request);
        self.0.finish().pop().expect("it is answered").result
    }

    fn blob(&mut self) -> Result<u32, Error> {
        let (partition, name) = place(0);
        match self.ask(Request::Open { partition, name, versions: (0, 0), create: true })? {
            Answer::Opened { blob, .. } => Ok(blob),
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, blob: u32, offset: u64, byte: u8) -> Result<Answer, Error> {
        let buffer = Buffer::copy_of(&[byte; 512]);
        self.ask(Request::Blob {
            blob,
            work: BlobRequest::Write { offset, buffer, sync: false, cached: true },
        })
    }

    fn sync(&mut self, blob: u32) -> Result<Answer, Error> {
        self.ask(Request::Blob { blob, work: BlobRequest::Sync })
    }

    fn close(mut self) {
        self.0.close();
        assert!(self.0.is_finished());
    }
}

/// The power is cut, and the blob holds this.
fn must_hold(sim: &Sim, seed: u64, expected: &[u8]) {
    let sim = sim.power_cut(seed);
    let found = look(&sim, None)[0].clone();
    assert!(found.as_deref() == Some(expected), "seed {seed}: the blob is not what was synced");
}

/// A sync that succeeds after one that failed would speak for bytes that are lost.
fn a_failed_flush_is_final(lie: &dyn Fn(&Sim)) {
    for seed in 0..40 {
        let sim = Sim::new(seed);
        lie(&sim);
        let mut desk = Desk::open(&sim);
        let blob = desk.blob().expect("opens");
        desk.write(blob, 0, 1).expect("writes");
        sim.fail(Fault::new(Call::Sync));
        desk.sync(blob).expect_err("the flush fails");
        let again = desk.write(blob, 512, 2).and_then(|_| desk.sync(blob));
        if again.is_ok() {
            must_hold(&sim, seed, &[[1; 512], [2; 512]].concat());
        } else {
            assert_eq!(again.expect_err("it is poisoned").code, Code::BlobPoisoned);
        }
    }
}

/// The page cache shows a header that the disk does not have; what is synced behind it must be there.
fn what_a_failed_creation_left_is_made_whole(lie: &dyn Fn(&Sim)) {
    after_a_failed_creation(lie, &|sim, desk| {
        drop(desk);
        sim.kill();
    });
}

/// The same where a life that had nothing to do with the blob came between, and ended well.
fn what_a_failed_creation_left_is_remembered(lie: &dyn Fn(&Sim)) {
    after_a_failed_creation(lie, &|sim, desk| {
        desk.close();
        Desk::open(sim).close();
    });
}

fn after_a_failed_creation(lie: &dyn Fn(&Sim), end: &dyn Fn(&Sim, Desk)) {
    for seed in 0..40 {
        let sim = Sim::new(seed);
        lie(&sim);
        let mut desk = Desk::open(&sim);
        sim.fail(Fault::new(Call::Sync));
        desk.blob().expect_err("the flush fails");
        end(&sim, desk);
        let sim = sim.clone();
        let mut desk = Desk::open(&sim);
        let blob = desk.blob().expect("opens");
        desk.write(blob, 0, 1).expect("writes");
        desk.sync(blob).expect("is synced");
        let cut = sim.power_cut(seed);
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&cut, None)[0].clone()));
        let found = found.unwrap_or(None);
        assert!(found.as_deref() == Some(&[1; 512][..]), "seed {seed}: the blob is not what was synced");
    }
}

/// The last writes past the page cache of a process that was killed keep its blob locked until they have landed.
fn a_dead_owner_writes_over_nothing(lie: &dyn Fn(&Sim)) {
    let mut seeds_that_count = 0;
    for seed in 0..40 {
        let sim = Sim::new(seed);
        lie(&sim);
        let mut desk = Desk::open(&sim);
        let blob = desk.blob().expect("opens");
        let crowd = |desk: &mut Desk| {
            for id in 0..4 {
                let (offset, buffer) = (u64::from(id) * 4096, Buffer::copy_of(&[7; 4096]));
                let work = BlobRequest::Write { offset, buffer, sync: true, cached: true };
                desk.0.request(id, Request::Blob { blob, work });
            }
        };
        for _ in 0..3 {
            crowd(&mut desk);
            desk.0.finish();
        }
        sim.stall(true);
        crowd(&mut desk);
        (0..40).for_each(|_| desk.0.turn(&mut Vec::new()));
        sim.kill();
        drop(desk);
        let (partition, name) = place(0);
        let path = options(Layout::V1).directory.join(partition).join(format!("{:02x}", name[0]));
        let fs = sim.fs();
        let file = fs.open(&path, OpenOptions::WRITE).expect("opens");
        if sim.in_flight() > 0 {
            seeds_that_count += 1;
            assert!(!fs.try_lock(&file).expect("tries"), "a blob was free with a write of it in flight");
        }
        sim.stall(false);
        fs.sleep(std::time::Duration::from_secs(3));
        assert_eq!(sim.in_flight(), 0);
        assert!(fs.try_lock(&file).expect("tries"), "nothing holds it any more");
    }
    assert!(seeds_that_count > 10, "a write was at the disk in {seeds_that_count} runs");
}

/// Whoever has it open keeps others out.
fn a_store_is_one_owners(lie: &dyn Fn(&Sim)) {
    let sim = Sim::new(1);
    lie(&sim);
    let owner = Desk::open(&sim);
    let other = Turned::open(&options(Layout::V1), sim.disk());
    assert_eq!(other.err().map(|error| error.code), Some(Code::BlobStoreLocked), "the store is opened twice");
    owner.close();
    Desk::open(&sim).close();
}

#[test]
fn table_of_planted_bugs_names_every_one() {
    publish(TABLE, Bug::BLOB);
}
