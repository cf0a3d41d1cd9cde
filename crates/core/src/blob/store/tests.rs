//! A store whose engine is worked by hand.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringbolt_disk::sim::Sim;
use ringbolt_disk::{
    Backend, Buffer, Done, Engine, Fs, GRAIN, OnDone, Op, OpenOptions, Outcome, SharedDisk, Token,
};

use super::{State, Store};
use crate::blob::options::Options;
use crate::blob::{Answer, BlobRequest, Finished, Request};
use crate::error::Code;

/// What was submitted and not carried out, in this order.
type Ops = Arc<Mutex<Vec<(Token, Op)>>>;

struct Held(Ops);

impl Engine for Held {
    fn submit(&self, ops: &mut Vec<(Token, Op)>) {
        self.0.lock().expect("nobody panicked").append(ops);
    }
}

/// A store, its operations, and whom to tell of their ends.
struct ByHand {
    store: Store,
    news: Receiver<()>,
    fs: Arc<dyn Fs>,
    ops: Ops,
    on_done: OnDone,
}

impl ByHand {
    fn open(seed: u64) -> Self {
        let (fs, ops) = (Sim::new(seed).fs(), Ops::default());
        let (give, given) = channel();
        let held = Arc::clone(&ops);
        let engine = move |_, on_done| {
            give.send(on_done).expect("it is waited for");
            Ok(Box::new(Held(held)) as Box<dyn Engine>)
        };
        let disk = SharedDisk { fs: Arc::clone(&fs), engine: Box::new(engine), backend: Backend::Sim };
        let (told, news) = channel();
        let listener = Box::new(move || told.send(()).unwrap_or_default());
        let store = Store::open(Options::new("/store"), disk, listener);
        let on_done = given.recv().expect("the engine is built");
        let hand = Self { store, news, fs, ops, on_done };
        hand.wait(|state| matches!(state, State::Open { .. }));
        hand
    }

    fn wait(&self, is_so: impl Fn(&State) -> bool) {
        while !is_so(&self.store.state()) {
            self.news.recv_timeout(Duration::from_mins(1)).expect("something happens");
        }
    }

    fn take_ops(&self) -> Vec<(Token, Op)> {
        std::mem::take(&mut *self.ops.lock().expect("nobody panicked"))
    }

    fn carry_out(&self, (token, op): (Token, Op)) -> Done {
        let outcome = match op {
            Op::Job(job) => job(&*self.fs).map(Outcome::Job),
            Op::Sync { file } => self.fs.sync(&file).map(|()| Outcome::Synced),
            Op::Write { file, at, buffer, .. } => {
                let outcome = self.fs.write_at(&file, at, &buffer).map(|()| Outcome::Written);
                return Done { token, outcome, buffer: Some(buffer) };
            }
            other @ Op::Read { .. } => panic!("{other:?} was not asked for"),
        };
        Done { token, outcome, buffer: None }
    }

    fn tell(&self, mut done: Vec<Done>) {
        let mut next = Vec::new();
        (self.on_done)(&mut done, &mut next);
        self.ops.lock().expect("nobody panicked").append(&mut next);
    }

    fn taken(&self) -> Vec<Finished> {
        let mut finished = Vec::new();
        self.store.take(&mut finished);
        finished
    }

    fn carry_out_all(&self) {
        self.tell(self.take_ops().into_iter().map(|op| self.carry_out(op)).collect());
    }

    /// Ask for a durable write of a page.
    fn write_page(&self, id: u32, blob: u32, page: u64) {
        let buffer = Buffer::copy_of(&[id as u8; GRAIN]);
        let work = BlobRequest::Write { offset: page * GRAIN as u64, buffer, sync: true, cached: true };
        self.store.request(id, Request::Blob { blob, work });
    }

    /// A blob of two pages, whose file is about to be opened once more, for a crowd that was answered: that job is the
    /// only operation.
    fn crowded(&self) -> (u32, (Token, Op)) {
        let blob = self.blob();
        for page in 0..2 {
            self.write_page(0, blob, page);
            self.carry_out_all();
        }
        (0..3).for_each(|id| self.write_page(id, blob, 0));
        self.carry_out_all();
        let mut ops = self.take_ops().into_iter();
        let opening = ops.next().expect("the file is opened once more");
        self.tell(ops.map(|op| self.carry_out(op)).collect());
        assert_eq!(self.taken().len(), 5);
        (blob, opening)
    }

    fn blob(&self) -> u32 {
        let (partition, name) = ("one".to_owned(), b"name".to_vec());
        self.store.request(0, Request::Open { partition, name, versions: (0, 0), create: true });
        loop {
            self.carry_out_all();
            match self.taken().pop().map(|finished| finished.result) {
                None => {}
                Some(Ok(Answer::Opened { blob, .. })) => return blob,
                Some(other) => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_job_that_comes_to_nothing_ends_the_store_and_loses_no_completion() {
    // Whose calls the job had is not known any more, so all are answered; and what completed along with it is counted, or
    // the store would wait for it at its end.
    let hand = ByHand::open(1);
    let blob = hand.blob();
    let work = BlobRequest::Write { offset: 0, buffer: Buffer::copy_of(b"data"), sync: false, cached: true };
    hand.store.request(1, Request::Blob { blob, work });
    hand.store.request(2, Request::Partitions);
    hand.store.request(3, Request::Scan { partition: "one".to_owned() });
    let mut ops = hand.take_ops().into_iter();
    let (token, write) = ops.next().expect("it was submitted");
    drop(write);
    let error = ringbolt_disk::Error::of_std("job", "", &io::Error::from_raw_os_error(5));
    let lost = Done { token, outcome: Err(error), buffer: None };
    hand.tell(std::iter::once(lost).chain(ops.map(|op| hand.carry_out(op))).collect());
    let mut told: Vec<_> = hand.taken().into_iter().map(|it| (it.id, it.result.map(drop))).collect();
    told.sort_by_key(|told| told.0);
    assert_eq!(told.iter().map(|told| told.0).collect::<Vec<_>>(), [1, 2, 3]);
    for (_, result) in told {
        assert_eq!(result.expect_err("all of them are told").code, Code::BlobStoreIo);
    }
    hand.store.request(4, Request::Partitions);
    let refused = hand.taken().pop().expect("it is answered");
    assert_eq!((refused.id, refused.result.expect_err("it closes").code), (4, Code::BlobStoreClosed));
    hand.store.close();
    hand.wait(|state| *state == State::Closed);
}

#[test]
fn a_blob_that_is_closed_while_its_file_is_opened_once_more_can_be_opened_again() {
    for is_opened_again in [true, false] {
        let hand = ByHand::open(1);
        let (blob, opening) = hand.crowded();
        hand.store.request(1, Request::Blob { blob, work: BlobRequest::Close });
        assert_eq!(hand.taken().len(), 1, "it does not wait for that job");
        // Which holds the file, and with it the lock.
        let blob = is_opened_again.then(|| hand.blob());
        hand.tell(vec![hand.carry_out(opening)]);
        let again = hand.fs.open("/store/one/6e616d65".as_ref(), OpenOptions::WRITE).expect("opens");
        assert_eq!(hand.fs.try_lock(&again), Ok(!is_opened_again));
        if let Some(blob) = blob {
            hand.store.request(2, Request::Blob { blob, work: BlobRequest::Close });
            assert_eq!(hand.fs.try_lock(&again), Ok(true));
        }
    }
}

#[test]
fn a_write_past_the_cache_that_may_still_land_ends_the_blob() {
    let mut count = 0;
    for seed in 0..16 {
        let hand = ByHand::open(seed);
        let (blob, opening) = hand.crowded();
        hand.tell(vec![hand.carry_out(opening)]);
        // The last of them goes behind the first.
        [0, 1, 0].into_iter().zip(1..).for_each(|(page, id)| hand.write_page(id, blob, page));
        let mut ops = hand.take_ops();
        // Where the file is said to have holes, a job makes them.
        if ops.len() != 2 {
            while !ops.is_empty() {
                hand.tell(ops.drain(..).map(|op| hand.carry_out(op)).collect());
                ops = hand.take_ops();
            }
            continue;
        }
        count += 1;
        let (second, (token, _)) = (ops.pop().expect("two"), ops.pop().expect("one"));
        // So an engine answers that broke down.
        let error = ringbolt_disk::Error::of_std("io_uring_enter", "", &io::Error::from_raw_os_error(5));
        hand.tell(vec![Done { token, outcome: Err(error), buffer: None }]);
        let taken = || -> Vec<_> {
            let finished = hand.taken().into_iter();
            finished.map(|it| (it.id, it.result.map(drop).map_err(|error| error.code))).collect()
        };
        assert_eq!(taken(), [(1, Err(Code::BlobWriteFailed)), (3, Err(Code::BlobPoisoned))]);
        hand.tell(vec![hand.carry_out(second)]);
        assert_eq!(taken(), [(2, Err(Code::BlobPoisoned))]);
        hand.write_page(4, blob, 0);
        assert_eq!(taken(), [(4, Err(Code::BlobPoisoned))]);
        assert!(hand.take_ops().is_empty());
    }
    assert!(count > 3, "{count} disks had no holes");
}
