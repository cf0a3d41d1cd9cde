//! The life of a log's service: built, opened, turned until it is finished, ended. One loop on one thread.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringbolt_disk::{Backend, Disk, Done, Driver, File, NewDisk, Op, WriteMode};

use crate::error::{Code, Error, Result};
use crate::panic;
use crate::planted::{self, Bug};
use crate::wal::handle::{Format, Opened};
use crate::wal::key_value;
use crate::wal::log::Log;
use crate::wal::machine::{Machine, Step};
use crate::wal::mailbox::Shared;
use crate::wal::recovery;

/// A service that is yet to be opened, on the thread that will run it.
#[derive(Debug)]
pub struct Starting {
    disk: NewDisk<Disk>,
    shared: Arc<Shared>,
}

/// An open log's loop.
pub struct Service {
    // In the order of their end: the driver drains, then the files go, and with the last of them the lock.
    driver: Box<dyn Driver>,
    log: Box<dyn Machine>,
    lock: Option<File>,
    shared: Arc<Shared>,
    done: Vec<Done>,
}

impl Starting {
    pub(crate) fn new(disk: NewDisk<Disk>, shared: Arc<Shared>) -> Self {
        Self { disk, shared }
    }

    /// The whole life, for a thread of its own. A panic poisons the log; it goes no further.
    pub(crate) fn run(self) {
        let shared = self.shared.clone();
        let life = catch_unwind(AssertUnwindSafe(|| {
            if let Some(mut service) = self.open() {
                while service.turn() {}
            }
        }));
        if let Err(panic) = life {
            shared.fail(&panicked(&*panic));
        }
        shared.end();
    }

    /// Build the driver, recover the log. `None` where that failed: the handle knows why.
    pub fn open(self) -> Option<Service> {
        let shared = self.shared.clone();
        match self.try_open() {
            Ok(service) => Some(service),
            Err(error) => {
                shared.fail(&error);
                None
            }
        }
    }

    fn try_open(self) -> Result<Service> {
        let Self { disk, shared } = self;
        let build = |disk: Disk| Ok((disk.fs, disk.backend, (disk.driver)()?));
        let ((fs, backend, driver), reason) = disk.build(build).map_err(Error::backend_unavailable)?;
        let progress = |bytes, total| shared.progress(bytes, total);
        let check_wanted = || shared.check_wanted();
        let (opened, log, lock): (Opened, Box<dyn Machine>, File) = match shared.options.format {
            Format::Segments => {
                let recovery::Opened { start, recovery, lock } =
                    recovery::open(&*fs, &shared.options, &progress, &check_wanted)?;
                (opened(backend, reason, &start, recovery), Box::new(Log::new(start)), lock)
            }
            Format::Entries { sequences, file_bytes_max } => {
                let key_value::Recovered { start, recovery, lock } =
                    key_value::recover(&*fs, &shared.options, sequences, &progress, &check_wanted)?;
                let opened = start.opened(backend, reason, recovery);
                (opened, Box::new(key_value::Log::new(start, file_bytes_max)), lock)
            }
        };
        shared.open(opened, driver.waker());
        Ok(Service { driver, log, lock: Some(lock), shared, done: Vec::new() })
    }
}

fn opened(
    backend: Backend,
    backend_reason: Option<String>,
    start: &crate::wal::log::Start,
    recovery: crate::wal::Recovery,
) -> Opened {
    Opened {
        recovery,
        backend,
        backend_reason,
        first_lsn: start.head.first_lsn,
        last_lsn: start.next_lsn - 1,
        end: (start.segment.number, start.segment.tail),
        direct_io: start.segment.file.is_direct(),
        durability: start.policy.name(),
        log_id: start.head.log_id,
        incarnation: start.head.incarnation,
    }
}

impl Service {
    /// One round: sleep until something happens, take it in, tell, send what can be sent. `false` once the
    /// log is finished.
    pub fn turn(&mut self) -> bool {
        self.shared.set_idle(self.log.idle().filter(|_| self.shared.queue_is_empty()));
        self.driver.wait(self.log.deadline(), &mut self.done);
        let now = self.driver.now();
        let queue_is_empty = self.shared.queue_is_empty();
        for done in self.done.drain(..) {
            self.log.on_done(now, done, &self.shared.pool, queue_is_empty);
        }
        // Told before anything is sent: a lone write blocks this thread, and who waits should not.
        self.shared.publish(&mut *self.log);
        self.send();
        self.shared.publish(&mut *self.log);
        if planted::is(Bug::UnlockEarly) && self.log.failure().is_some() {
            self.lock = None;
        }
        !self.log.is_finished()
    }

    fn send(&mut self) {
        loop {
            let intake = self.shared.take(self.log.wants_batch());
            self.log.want_durable(intake.durable_wanted);
            self.log.flush(intake.flush);
            for asked in intake.requests {
                self.log.ask(asked);
            }
            let took = intake.batch.is_some();
            if let Some(batch) = intake.batch {
                self.log.accept(batch);
            }
            if intake.closing && intake.queue_is_empty {
                self.log.close();
            }
            let now = self.driver.now();
            match self.log.next(now, self.shared.fs.wall_clock(), intake.queue_is_empty) {
                Some(Step::Submit(token, op)) => {
                    // It may block: a disk that never answers must show before (durability rule 12).
                    let alone = matches!(op, Op::Write { mode: WriteMode::Alone, .. });
                    if alone {
                        self.shared.publish(&mut *self.log);
                    }
                    self.driver.submit(token, op);
                    if alone {
                        // It is complete. What came meanwhile overlaps with nothing, and who waits is told first.
                        return;
                    }
                }
                Some(Step::Refuse(error)) => self.shared.refuse(self.log.next_lsn(), error),
                None if took => {}
                None => return,
            }
        }
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Service({:?}, {:?})", self.log, self.lock)
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic::message(panic);
    Error::new(
        Code::WalIo,
        format!(
            "the log's thread panicked ({text}): a bug in ringbolt, please report it; open the log again"
        ),
    )
}
