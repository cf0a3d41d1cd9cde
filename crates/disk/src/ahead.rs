//! A read that is begun before anybody needs it, so that what was read last is worked on meanwhile.

use std::thread::{Builder, JoinHandle};

use crate::{Buffer, File, Fs, Result, job};

/// A read of a file that is under way, or still to be made: see [`Fs::read_ahead`]. Dropped, it goes on, and nobody hears of
/// it: the file is closed, and the memory freed, when it ends.
#[derive(Debug)]
pub struct ReadAhead(Stage);

/// A buffer, and how many bytes were read into it.
type Read = (Buffer, Result<usize>);

#[derive(Debug)]
enum Stage {
    /// By a thread of its own, which owns the file and the buffer, and ends with the read.
    Begun(JoinHandle<Read>),
    /// Over.
    #[cfg(feature = "sim")]
    Made(Buffer, Result<usize>),
    /// By whoever waits for it.
    Later { file: File, at: u64, buffer: Buffer, skip: usize },
}

impl ReadAhead {
    /// Made when it is waited for.
    pub(crate) fn later(file: &File, at: u64, buffer: Buffer, skip: usize) -> Self {
        Self(Stage::Later { file: file.clone(), at, buffer, skip })
    }

    /// Begun now, by `fs` on a thread of its own: to start that takes a fraction of what a megabyte takes to be read. Where
    /// none can be had it is made later, in memory of its own.
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
            Ok(thread) => Self(Stage::Begun(thread)),
            Err(_) => Self::later(file, at, Buffer::zeroed(len), skip),
        }
    }

    /// Made already.
    #[cfg(feature = "sim")]
    pub(crate) fn made(buffer: Buffer, read: Result<usize>) -> Self {
        Self(Stage::Made(buffer, read))
    }

    /// The buffer, in which the bytes from `skip` on were read, and how many they are: fewer than were asked for only at the
    /// end of the file. What lies before `skip` is anything.
    ///
    /// # Errors
    /// As [`Fs::read_at`].
    pub fn wait(self, fs: &dyn Fs) -> (Buffer, Result<usize>) {
        match self.0 {
            Stage::Begun(thread) => joined(thread),
            #[cfg(feature = "sim")]
            Stage::Made(buffer, read) => (buffer, read),
            Stage::Later { file, at, mut buffer, skip } => {
                let read = fs.read_at(&file, at, &mut buffer[skip..]);
                (buffer, read)
            }
        }
    }

    /// The buffer alone: what is in it is not wanted any more. Waits for a read that is under way.
    pub fn into_buffer(self) -> Buffer {
        match self.0 {
            Stage::Begun(thread) => joined(thread).0,
            #[cfg(feature = "sim")]
            Stage::Made(buffer, _) => buffer,
            Stage::Later { buffer, .. } => buffer,
        }
    }
}

fn joined(thread: JoinHandle<Read>) -> Read {
    thread.join().expect("its panic was caught")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_lets_go_of_a_read_does_not_wait_for_it() {
        // Goal: it may be JavaScript's thread, and the disk may never answer. Method: a read that ends only when it is told
        // to, afterwards; it hears of that, so it went on.
        let ((go, told), (done, end)) = (channel(), channel());
        let read = move || {
            let heard = told.recv();
            done.send(heard).expect("the test waits");
            (Buffer::zeroed(1), Ok(1))
        };
        drop(ReadAhead(Stage::Begun(std::thread::spawn(read))));
        go.send(()).expect("the read is under way");
        assert_eq!(end.recv(), Ok(Ok(())));
    }
}
