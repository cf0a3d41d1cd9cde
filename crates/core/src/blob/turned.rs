//! A store without threads: on a driver, turned by hand. For the crash tests, on the simulated disk.

use std::sync::Arc;

use ringbolt_disk::{Disk, Done, Driver, Fs, Op, Pool, Token};

use crate::blob::machine::{Config, Machine};
use crate::blob::options::Options;
use crate::blob::root::Root;
use crate::blob::{Finished, Request, root};
use crate::error::Result;

/// A store that does nothing between two calls.
pub struct Turned {
    // In the order of their end: the driver drains, then the files go, then the lock.
    driver: Box<dyn Driver>,
    machine: Machine,
    root: Option<Root>,
    fs: Arc<dyn Fs>,
    ops: Vec<(Token, Op)>,
    done: Vec<Done>,
}

impl Turned {
    /// Open a store.
    ///
    /// # Errors
    /// What [`crate::blob::State::Failed`] would tell.
    ///
    /// # Panics
    /// Where the disk gives no driver.
    pub fn open(options: &Options, disk: Disk) -> Result<Self> {
        let Disk { fs, driver, .. } = disk;
        let root = root::open(&*fs, options, &|| true)?;
        let mut machine = Machine::new(Config::of(options), Arc::new(Pool::default()));
        if !root.is_settled {
            machine.distrust();
        }
        let driver = driver().expect("the simulated disk gives a driver to everybody");
        Ok(Self { driver, machine, root: Some(root), fs, ops: Vec::new(), done: Vec::new() })
    }

    /// As [`crate::blob::Store::request`].
    pub fn request(&mut self, id: u32, request: Request) {
        self.machine.request(self.fs.now(), id, request);
        self.submit();
    }

    /// Let something happen, and take what is answered by it.
    pub fn turn(&mut self, out: &mut Vec<Finished>) {
        self.driver.wait(Some(self.driver.now()), &mut self.done);
        for done in self.done.drain(..) {
            self.machine.on_done(self.fs.now(), done);
        }
        self.submit();
        out.append(self.machine.finished());
        self.end();
    }

    /// The size of an open blob, in bytes.
    pub fn size(&self, blob: u32) -> Option<u64> {
        self.machine.file(blob).map(|(_, _, size)| size)
    }

    /// Turn until everything that was asked is answered.
    ///
    /// # Panics
    /// Where that does not come about.
    pub fn finish(&mut self) -> Vec<Finished> {
        let mut out = Vec::new();
        for _ in 0..100_000 {
            self.turn(&mut out);
            if self.machine.stats(self.fs.now()).pending == 0 {
                return out;
            }
        }
        panic!("requests are not answered: {:?}", self.machine);
    }

    /// As [`crate::blob::Store::close`]; [`Turned::is_finished`] says when it is over.
    pub fn close(&mut self) {
        self.machine.close();
        self.end();
    }

    /// Whether it is closed, and nothing is under way.
    pub fn is_finished(&self) -> bool {
        self.machine.is_finished()
    }

    /// Let go of the directory once it is over.
    fn end(&mut self) {
        if self.machine.is_finished()
            && let Some(root) = self.root.take()
        {
            let leaving = self.machine.let_go();
            root.close(&*self.fs, &leaving);
        }
    }

    fn submit(&mut self) {
        self.machine.take_ops(&mut self.ops);
        for (token, op) in self.ops.drain(..) {
            self.driver.submit(token, op);
        }
    }
}

impl std::fmt::Debug for Turned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turned({:?})", self.machine)
    }
}
