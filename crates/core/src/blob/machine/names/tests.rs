//! The machine, stepped by hand: its operations are carried out in order and heard of in the order of the test's choosing.

use std::path::Path;
use std::sync::Arc;

use ringbolt_disk::sim::{Call, Fault, Sim};
use ringbolt_disk::{Buffer, Done, Fs, Op, Outcome, Pool, Time};

use super::UNFLUSHED_MAX;
use crate::blob::machine::{Config, Machine};
use crate::blob::options::Options;
use crate::blob::{Answer, BlobRequest, Finished, Request};
use crate::error::{Code, Result};

const ROOT: &str = "/store";

/// A machine, and what was carried out for it that it has not heard of.
struct ByHand {
    sim: Sim,
    fs: Arc<dyn Fs>,
    machine: Machine,
    unheard: Vec<Done>,
}

impl ByHand {
    fn new() -> Self {
        let sim = Sim::new(1);
        sim.make_dir(ROOT);
        let machine = Machine::new(Config::of(&Options::new(ROOT)), Arc::new(Pool::default()));
        Self { fs: sim.fs(), sim, machine, unheard: Vec::new() }
    }

    fn request(&mut self, id: u32, request: Request) {
        self.machine.request(Time::default(), id, request);
    }

    fn open(&mut self, id: u32, name: &[u8]) {
        let (partition, name) = ("p".to_owned(), name.to_vec());
        self.request(id, Request::Open { partition, name, versions: (0, 0), create: true });
    }

    /// Carry out what the machine wants by now, and let it hear of the last thing that it has not heard of. Answers
    /// with what it answered.
    fn step(&mut self) -> Vec<Finished> {
        let mut ops = Vec::new();
        self.machine.take_ops(&mut ops);
        for (token, op) in ops {
            let outcome = match op {
                Op::Job(job) => job(&*self.fs).map(Outcome::Job),
                Op::Sync { file } => self.fs.sync(&file).map(|()| Outcome::Synced),
                other => panic!("{other:?} is not about names"),
            };
            self.unheard.push(Done { token, outcome, buffer: None });
        }
        if let Some(done) = self.unheard.pop() {
            self.machine.on_done(Time::default(), done);
        }
        self.machine.finished().drain(..).collect()
    }

    /// Step until one request is answered.
    fn answer(&mut self) -> Result<Answer> {
        loop {
            if let Some(Finished { result, .. }) = self.step().pop() {
                return result;
            }
        }
    }

    /// Make a blob, write to it, and close it without a flush.
    fn leave(&mut self, name: &[u8]) {
        self.open(0, name);
        let Ok(Answer::Opened { blob, .. }) = self.answer() else { panic!("it opens") };
        let buffer = Buffer::copy_of(b"left");
        let work = BlobRequest::Write { offset: 0, buffer, sync: false, cached: true };
        self.request(0, Request::Blob { blob, work });
        self.answer().expect("writes");
        self.request(0, Request::Blob { blob, work: BlobRequest::Close });
        assert_eq!(self.machine.finished().drain(..).count(), 1, "nothing is to be waited for");
    }

    /// Whether a power cut now would leave the blob.
    fn is_durable(&self, hex: &str) -> bool {
        let after = self.sim.image().boot_with([], 1);
        after.list(Path::new(ROOT).join("p")).iter().any(|name| name == hex)
    }
}

#[test]
fn opens_behind_a_removal_are_answered_when_the_partition_made_again_is_durable() {
    // Goal: two opens that wait for the removal of their partition do not make it side by side, or the one that only
    // finds its directory, and is heard of first, answers while the directory's name is pending. Method: hear of the
    // later one first, and cut the power at each answer.
    let mut hand = ByHand::new();
    hand.open(0, b"first");
    while hand.step().is_empty() {}
    hand.request(1, Request::Remove { partition: "p".to_owned(), name: None });
    hand.open(2, &[0xbb]);
    hand.open(3, &[0xcc]);
    let mut answered = Vec::new();
    for _ in 0..100 {
        for Finished { id, result } in hand.step() {
            match (id, result) {
                (1, Result::Ok(Answer::Done)) => {}
                (2, Ok(Answer::Opened { .. })) => assert!(hand.is_durable("bb"), "{answered:?}"),
                (3, Ok(Answer::Opened { .. })) => assert!(hand.is_durable("cc"), "{answered:?}"),
                other => panic!("{other:?}"),
            }
            answered.push(id);
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3]);
}

/// So many blobs are left that all are flushed, and what that came to is not heard of yet when one of them is opened.
fn reopened_meanwhile(fault: Fault) -> (ByHand, Result<Answer>) {
    let mut hand = ByHand::new();
    let names: Vec<_> = (0..UNFLUSHED_MAX as u32).map(u32::to_be_bytes).collect();
    for name in &names {
        hand.leave(name);
    }
    hand.sim.fail(fault.named("00000007"));
    hand.open(0, &names[7]);
    let answer = hand.answer();
    (hand, answer)
}

#[test]
fn a_blob_that_is_opened_while_what_was_left_is_flushed_hears_of_a_failure() {
    // Goal: the flush that failed has lost what was left, and the system tells of it once. Method: the open is carried out
    // behind it, and would be heard of first.
    let (mut hand, answer) = reopened_meanwhile(Fault::new(Call::Sync));
    assert_eq!(answer.expect_err("what was left is lost").code, Code::BlobPoisoned);
    hand.open(0, &7_u32.to_be_bytes());
    assert_eq!(hand.answer().expect_err("for good").code, Code::BlobPoisoned);
    hand.open(0, &8_u32.to_be_bytes());
    hand.answer().expect("others are not concerned");
}

#[test]
fn what_was_left_and_could_not_be_opened_to_be_flushed_is_not_lost() {
    let (hand, answer) = reopened_meanwhile(Fault::new(Call::Open));
    answer.expect("opens, and is flushed then");
    let path = Path::new(ROOT).join("p/00000007");
    let after = hand.sim.image().boot_with([], 1);
    assert!(after.read_file(path).ends_with(b"left"));
}

#[test]
fn opens_that_make_their_partition_together_are_answered_when_it_is_durable() {
    // Goal: the one that only finds the directory which another has just made does not take its name for durable, also
    // where the sync of it fails for the other. Method: hear of the later one first, and cut the power at each answer.
    for is_struck in [false, true] {
        let mut hand = ByHand::new();
        if is_struck {
            hand.sim.fail(Fault::new(Call::SyncDir).named("store"));
        }
        hand.open(0, &[0xaa]);
        hand.open(1, &[0xbb]);
        let mut opened = Vec::new();
        for _ in 0..100 {
            for Finished { id, result } in hand.step() {
                let name = ["aa", "bb"][id as usize];
                assert!(result.is_err() || hand.is_durable(name), "{name}");
                opened.push((id, result.is_ok()));
            }
        }
        assert_eq!(opened, [(0, !is_struck), (1, true)]);
    }
}
