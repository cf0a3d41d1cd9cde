//! A read that is begun before anybody needs it, so that what was read last is worked on meanwhile.

use std::thread::{Builder, JoinHandle};

use crate::{Buffer, File, Fs, Result, job};

/// A read of a file that is under way, or still to be made: see [`Fs::read_ahead`]. Dropped, it waits for its end.
#[derive(Debug)]
pub struct ReadAhead(Option<Stage>);

/// The buffer, and how many bytes were read into it.
type Read = (Buffer, Result<usize>);

/// A read that is still to be made.
type Reading = Box<dyn FnOnce(&dyn Fs) -> Read + Send>;

enum Stage {
    /// By a thread of its own, which owns the file and the buffer, and ends with the read.
    Begun(JoinHandle<Read>),
    /// By whoever waits for it.
    Later(Reading),
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Begun(_)) { "Begun" } else { "Later" })
    }
}

impl ReadAhead {
    /// Made when it is waited for.
    pub(crate) fn later(file: &File, at: u64, mut buffer: Buffer, skip: usize) -> Self {
        let file = file.clone();
        Self(Some(Stage::Later(Box::new(move |fs| {
            let read = fs.read_at(&file, at, &mut buffer[skip..]);
            (buffer, read)
        }))))
    }

    /// Begun now, by `fs` on a thread of its own: to start that takes a fraction of what a megabyte takes to be read. Where
    /// none can be had it is made later.
    pub(crate) fn begun(
        fs: impl Fs + 'static,
        file: &File,
        at: u64,
        mut buffer: Buffer,
        skip: usize,
    ) -> Self {
        let (len, its) = (buffer.len(), file.clone());
        let read = move || {
            let read = job::caught("read", || fs.read_at(&its, at, &mut buffer[skip..]));
            (buffer, read)
        };
        match Builder::new().name("ringbolt-ahead".into()).spawn(read) {
            Ok(thread) => Self(Some(Stage::Begun(thread))),
            Err(_) => Self::later(file, at, Buffer::zeroed(len), skip),
        }
    }

    /// The buffer it was given, and how many bytes were read: fewer than were asked for only at the end of the file.
    ///
    /// # Errors
    /// As [`Fs::read_at`].
    #[expect(clippy::missing_panics_doc, reason = "it cannot")]
    pub fn wait(mut self, fs: &dyn Fs) -> (Buffer, Result<usize>) {
        match self.0.take().expect("it is taken here and by the drop only") {
            Stage::Begun(thread) => thread.join().expect("its panic was caught"),
            Stage::Later(read) => read(fs),
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        // So that nothing of it goes on behind its owner's back: the file is closed.
        if let Some(Stage::Begun(thread)) = self.0.take() {
            let _ = thread.join();
        }
    }
}
