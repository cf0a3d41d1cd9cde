//! A log on a simulated machine, stepped by hand, beside a model of what it was told and what it promised.

#![allow(dead_code, reason = "every test file takes what it needs of this one")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use ringbolt_core::Error;
use ringbolt_core::format::GRAIN;
use ringbolt_core::format::frame::{HEADER_BYTES, RECORD_PREFIX_BYTES};
use ringbolt_core::wal::{
    Answer, Check, Handle, Options, Phase, Records, Recovery, Request, Run, Service, Source, Status, SyncMode,
};
use ringbolt_disk::sim::Sim;
use ringbolt_disk::{
    Buffer, Disk, Done, Driver, Entry, EntryKind, File, Fs, Op, OpenOptions, Time, Token, Waker,
};

pub(crate) const DIRECTORY: &str = "/data/log";

/// Small segments: many rotations in few records.
pub(crate) fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        lock_timeout: Duration::from_secs(10),
        check: Check::All,
        ..Options::new(DIRECTORY)
    }
}

/// What a log must hold: every record ever submitted and not known to be lost, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) records: Vec<Vec<u8>>,
    /// The last LSN of each run: a run is there whole or not at all.
    pub(crate) ends: Vec<u64>,
}

impl Model {
    pub(crate) fn last(&self) -> u64 {
        self.records.len() as u64
    }

    /// Add a run; its content is told from every other's by `salt`.
    pub(crate) fn run(
        &mut self,
        rng: &mut SmallRng,
        salt: u64,
        count: usize,
        bytes_max: usize,
    ) -> &[Vec<u8>] {
        let first = self.records.len();
        for _ in 0..count {
            let mut record = vec![0; rng.random_range(0..=bytes_max)];
            rng.fill_bytes(&mut record);
            let mark = salt.to_le_bytes();
            let marked = record.len().min(mark.len());
            record[..marked].copy_from_slice(&mark[..marked]);
            self.records.push(record);
        }
        self.ends.push(self.last());
        &self.records[first..]
    }

    /// What was submitted and is not there is forgotten: its LSNs are given out again.
    pub(crate) fn cut(&mut self, last: u64) {
        self.records.truncate(last as usize);
        self.ends.retain(|&end| end <= last);
    }
}

/// An open log on a machine.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) handle: Arc<Handle>,
    pub(crate) service: Service,
}

impl Log {
    /// Open the log of this machine. Each time the log tells of progress, `tell` hears the watermarks.
    pub(crate) fn open_with(
        sim: &Sim,
        options: Options,
        tell: impl Fn(&Status) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        Self::open_on(sim.disk(), options, tell)
    }

    /// The same on any disk.
    pub(crate) fn open_on(
        disk: Disk,
        options: Options,
        tell: impl Fn(&Status) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let slot = Arc::new(OnceLock::<Weak<Handle>>::new());
        let listener_slot = slot.clone();
        let listener = move || {
            if let Some(handle) = listener_slot.get().and_then(Weak::upgrade) {
                tell(&handle.status());
            }
        };
        let (handle, starting) = Handle::stepped(options, disk, Box::new(listener));
        let handle = Arc::new(handle);
        slot.set(Arc::downgrade(&handle)).expect("set once");
        match starting.open() {
            Some(service) => Ok(Self { handle, service }),
            None => Err(handle.failure().expect("an open that failed says why")),
        }
    }

    pub(crate) fn open(sim: &Sim, options: Options) -> Result<Self, Error> {
        Self::open_with(sim, options, |_| {})
    }

    pub(crate) fn recovery(&self) -> Recovery {
        self.handle.opened().expect("the log is open").recovery
    }

    pub(crate) fn last_lsn(&self) -> u64 {
        self.handle.opened().expect("the log is open").last_lsn
    }

    /// Submit records as one run. `first_lsn` is theirs to know.
    pub(crate) fn submit(&self, first_lsn: u64, records: &[Vec<u8>], durable: bool) -> Result<(), Error> {
        let slices: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let epoch = self.handle.status().epoch;
        self.handle.submit(Run { epoch, first_lsn, records: Records::Apart(&slices), durable })
    }

    /// Append one record and turn until it is durable.
    pub(crate) fn append(&mut self, lsn: u64, record: &[u8]) -> Result<(), Error> {
        self.submit(lsn, &[record.to_vec()], true)?;
        self.turn_until(|status| status.durable_lsn >= lsn || status.phase == Phase::Failed);
        self.handle.failure().map_or(Ok(()), Err)
    }

    /// Append one record after another, each until it is durable.
    pub(crate) fn append_all(&mut self, records: &[Vec<u8>]) {
        let first = self.handle.status().durable_lsn + 1;
        for (lsn, record) in (first..).zip(records) {
            self.append(lsn, record).expect("appends");
        }
    }

    /// Ask for something and turn until it is answered, or the log fails.
    pub(crate) fn request(&mut self, request: Request) -> Result<Answer, Error> {
        let number = self.handle.ask(request);
        for _ in 0..100_000 {
            if let Some(failure) = self.handle.failure() {
                return Err(failure);
            }
            if let Some((answered, answer)) = self.handle.take_answers().pop() {
                assert_eq!(answered, number, "one at a time");
                return answer;
            }
            self.service.turn();
        }
        panic!("the log hangs: {request:?}, {:?}", self.service);
    }

    /// So many turns, whatever happens.
    pub(crate) fn turn(&mut self, turns: usize) {
        for _ in 0..turns {
            self.service.turn();
        }
    }

    pub(crate) fn turn_until(&mut self, reached: impl Fn(&Status) -> bool) {
        for _ in 0..100_000 {
            if reached(&self.handle.status()) {
                return;
            }
            self.service.turn();
        }
        panic!("the log hangs: {:?}", self.handle.status());
    }

    /// Close, and end.
    pub(crate) fn close(mut self) -> Result<(), Error> {
        self.handle.close();
        for _ in 0..100_000 {
            if !self.service.turn() {
                return self.handle.failure().map_or(Ok(()), Err);
            }
        }
        panic!("the log does not close: {:?}", self.service);
    }

    /// Every record from `from` on.
    pub(crate) fn read(&self, from: u64) -> Result<Vec<Vec<u8>>, Error> {
        read_all(self.handle.read(from, u64::MAX)?)
    }
}

/// A machine's disk whose driver notes every operation that it is handed, in words.
pub(crate) fn watched(sim: &Sim) -> (Disk, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = seen.clone();
    let disk = on_submit(sim, move |op| noted.lock().expect("nobody panics").push(format!("{op:?}")));
    (disk, seen)
}

/// A machine's disk whose driver hears of every operation first.
pub(crate) fn on_submit(sim: &Sim, hear: impl FnMut(&Op) + Send + 'static) -> Disk {
    let Disk { fs, driver, backend } = sim.disk();
    let hearing = move || -> ringbolt_disk::Result<Box<dyn Driver>> {
        Ok(Box::new(Hearing { driver: driver()?, hear: Box::new(hear) }))
    };
    Disk { fs, driver: Box::new(hearing), backend }
}

struct Hearing {
    driver: Box<dyn Driver>,
    hear: Box<dyn FnMut(&Op)>,
}

impl Driver for Hearing {
    fn submit(&mut self, token: Token, op: Op) {
        (self.hear)(&op);
        self.driver.submit(token, op);
    }

    fn wait(&mut self, until: Option<Time>, out: &mut Vec<Done>) {
        self.driver.wait(until, out);
    }

    fn waker(&self) -> Waker {
        self.driver.waker()
    }

    fn now(&self) -> Time {
        self.driver.now()
    }
}

/// A machine's disk whose driver panics where a real one would sleep with nobody left to wake it: what was
/// asked of the log before is not heard then.
pub(crate) fn insomniac(sim: &Sim) -> Disk {
    let Disk { fs, driver, backend } = sim.disk();
    let insomniac = move || -> ringbolt_disk::Result<Box<dyn Driver>> {
        Ok(Box::new(Insomniac { driver: driver()?, in_flight: 0, is_woken: Arc::default() }))
    };
    Disk { fs, driver: Box::new(insomniac), backend }
}

struct Insomniac {
    driver: Box<dyn Driver>,
    in_flight: usize,
    is_woken: Arc<AtomicBool>,
}

impl Driver for Insomniac {
    fn submit(&mut self, token: Token, op: Op) {
        self.in_flight += 1;
        self.driver.submit(token, op);
    }

    fn wait(&mut self, until: Option<Time>, out: &mut Vec<Done>) {
        let is_woken = self.is_woken.swap(false, Ordering::SeqCst);
        assert!(is_woken || self.in_flight > 0 || until.is_some(), "it sleeps, and nobody will wake it");
        let before = out.len();
        self.driver.wait(until, out);
        self.in_flight -= out.len() - before;
    }

    fn waker(&self) -> Waker {
        let (is_woken, waker) = (self.is_woken.clone(), self.driver.waker());
        Waker::new(move || {
            is_woken.store(true, Ordering::SeqCst);
            waker.wake();
        })
    }

    fn now(&self) -> Time {
        self.driver.now()
    }
}

/// A machine's disk whose plain writes of segments arrive as zeros: what a page cache does that drops a page which
/// never reached the disk between a read of it and the next.
pub(crate) fn forgetful(sim: &Sim) -> Disk {
    let Disk { fs, driver, backend } = sim.disk();
    Disk { fs: Arc::new(Meddled { fs, before_read: None, forgets: true }), driver, backend }
}

/// The calls of another process of this machine, and before each one that only looks, `before` is called.
pub(crate) fn interrupted(sim: &Sim, before: impl Fn() + Send + Sync + 'static) -> Arc<dyn Fs> {
    Arc::new(Meddled { fs: sim.disk().fs, before_read: Some(Box::new(before)), forgets: false })
}

struct Meddled {
    fs: Arc<dyn Fs>,
    before_read: Option<Box<dyn Fn() + Send + Sync>>,
    forgets: bool,
}

impl Meddled {
    fn before(&self) {
        if let Some(before) = &self.before_read {
            before();
        }
    }
}

impl Fs for Meddled {
    fn write_at(&self, file: &File, at: u64, bytes: &Buffer) -> ringbolt_disk::Result<()> {
        if self.forgets && file.path().extension().is_some_and(|extension| extension == "seg") {
            return self.fs.write_at(file, at, &Buffer::copy_of(&vec![0; bytes.len()]));
        }
        self.fs.write_at(file, at, bytes)
    }

    fn open(&self, path: &Path, options: OpenOptions) -> ringbolt_disk::Result<File> {
        self.before();
        self.fs.open(path, options)
    }

    fn len(&self, file: &File) -> ringbolt_disk::Result<u64> {
        self.before();
        self.fs.len(file)
    }

    fn set_len(&self, file: &File, len: u64) -> ringbolt_disk::Result<()> {
        self.fs.set_len(file, len)
    }

    fn read_at(&self, file: &File, at: u64, into: &mut [u8]) -> ringbolt_disk::Result<usize> {
        self.before();
        self.fs.read_at(file, at, into)
    }

    fn write_uncached_at(&self, file: &File, at: u64, bytes: &Buffer) -> ringbolt_disk::Result<()> {
        self.fs.write_uncached_at(file, at, bytes)
    }

    fn read_cached(&self, file: &File, at: u64, into: &mut [u8]) -> ringbolt_disk::Result<usize> {
        self.before();
        self.fs.read_cached(file, at, into)
    }

    fn sync(&self, file: &File) -> ringbolt_disk::Result<()> {
        self.fs.sync(file)
    }

    fn allocate(&self, file: &File, len: u64) -> ringbolt_disk::Result<()> {
        self.fs.allocate(file, len)
    }

    fn zero(&self, file: &File, at: u64, len: u64) -> ringbolt_disk::Result<()> {
        self.fs.zero(file, at, len)
    }

    fn try_lock(&self, file: &File) -> ringbolt_disk::Result<bool> {
        self.fs.try_lock(file)
    }

    fn share_lock(&self, file: &File, other: &File) -> ringbolt_disk::Result<bool> {
        self.fs.share_lock(file, other)
    }

    fn written_len(&self, file: &File) -> ringbolt_disk::Result<u64> {
        self.fs.written_len(file)
    }

    fn is_linked(&self, file: &File, path: &Path) -> ringbolt_disk::Result<bool> {
        self.fs.is_linked(file, path)
    }

    fn has_cheap_dsync(&self, file: &File) -> bool {
        self.fs.has_cheap_dsync(file)
    }

    fn stat(&self, path: &Path) -> ringbolt_disk::Result<Option<EntryKind>> {
        self.before();
        self.fs.stat(path)
    }

    fn list(&self, directory: &Path) -> ringbolt_disk::Result<Vec<Entry>> {
        self.before();
        self.fs.list(directory)
    }

    fn create_dir(&self, path: &Path, mode: u32) -> ringbolt_disk::Result<()> {
        self.fs.create_dir(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> ringbolt_disk::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove(&self, path: &Path) -> ringbolt_disk::Result<()> {
        self.fs.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> ringbolt_disk::Result<()> {
        self.fs.remove_dir(path)
    }

    fn sync_all(&self, directory: &Path) -> ringbolt_disk::Result<()> {
        self.fs.sync_all(directory)
    }

    fn sync_dir(&self, directory: &Path) -> ringbolt_disk::Result<()> {
        self.fs.sync_dir(directory)
    }

    fn random(&self) -> [u8; 16] {
        self.fs.random()
    }

    fn wall_clock(&self) -> u64 {
        self.fs.wall_clock()
    }

    fn now(&self) -> Time {
        self.fs.now()
    }

    fn sleep(&self, pause: Duration) {
        self.fs.sleep(pause);
    }

    fn pid(&self) -> u32 {
        self.fs.pid()
    }
}

/// All that is left in a reader.
pub(crate) fn read_all(mut reader: Box<dyn Source>) -> Result<Vec<Vec<u8>>, Error> {
    let mut records = Vec::new();
    while let Some(chunk) = reader.next(10_000)? {
        let mut rest = &chunk.bytes[..];
        for _ in 0..chunk.count {
            let (prefix, behind) = rest.split_first_chunk::<4>().expect("a prefix");
            let (record, behind) = behind.split_at(u32::from_le_bytes(*prefix) as usize);
            records.push(record.to_vec());
            rest = behind;
        }
        assert!(rest.is_empty());
    }
    Ok(records)
}

/// The longest record whose frame is one grain. Segments of [`options`] hold [`FRAMES`] of them.
pub(crate) const RECORD_BYTES: usize = GRAIN as usize - HEADER_BYTES - RECORD_PREFIX_BYTES;

/// So many one-grain frames fit a segment, beside its header and its seal.
pub(crate) const FRAMES: usize = 14;

/// `count` records that fill a frame of one grain each, told apart by what they are made of.
pub(crate) fn records(count: usize) -> Vec<Vec<u8>> {
    (1..=count).map(|number| vec![u8::try_from(number).expect("few"); RECORD_BYTES]).collect()
}

/// A file of the log.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// What a machine holds, but for the one file that a refused open may touch.
pub(crate) fn without_lock(mut snapshot: BTreeMap<PathBuf, Vec<u8>>) -> BTreeMap<PathBuf, Vec<u8>> {
    snapshot.remove(&path("LOCK"));
    snapshot
}

pub(crate) fn rng(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}

pub(crate) fn any_sync_mode(rng: &mut SmallRng) -> SyncMode {
    [SyncMode::Auto, SyncMode::Dsync, SyncMode::Fdatasync][rng.random_range(0..3)]
}
