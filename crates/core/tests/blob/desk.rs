//! A store that is asked one thing at a time, on the simulated disk or on this machine's.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ringbolt_core::Error;
use ringbolt_core::blob::{Answer, BlobRequest, Finished, Layout, Options, Request, State, Store, Turned};
use ringbolt_disk::sim::Sim;
use ringbolt_disk::{Buffer, SharedDisk};
use tempfile::TempDir;

/// A disk of this machine.
pub(crate) type System = fn() -> SharedDisk;

/// Where a store lies. Paths are relative to its directory.
#[derive(Debug)]
pub(crate) enum Place {
    Sim(Sim),
    Real(TempDir, System),
}

/// An open store.
#[derive(Debug)]
pub(crate) enum Desk {
    Turned(Box<Turned>),
    Real(Store, Receiver<()>),
}

/// Try something on the simulated disk and on this machine's, on each backend.
pub(crate) fn everywhere(test: impl Fn(&Place)) {
    test(&Place::sim());
    #[cfg(all(target_os = "linux", feature = "ring"))]
    test(&Place::real(ringbolt_disk::shared_disk));
    test(&Place::real(ringbolt_disk::pool::shared_disk));
}

impl Place {
    pub(crate) fn sim() -> Self {
        Self::Sim(Sim::new(1))
    }

    pub(crate) fn real(system: System) -> Self {
        Self::Real(tempfile::tempdir().expect("a directory"), system)
    }

    /// An empty one on a disk of that kind.
    pub(crate) fn another(&self) -> Self {
        match self {
            Self::Sim(_) => Self::sim(),
            Self::Real(_, system) => Self::real(*system),
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        match self {
            Self::Sim(_) => PathBuf::from("/data/store"),
            Self::Real(directory, _) => directory.path().join("store"),
        }
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root().join(path)
    }

    pub(crate) fn make_dir(&self, path: impl AsRef<Path>) {
        let path = self.path(path);
        match self {
            Self::Sim(sim) => sim.make_dir(path),
            Self::Real(..) => std::fs::create_dir_all(path).expect("makes"),
        }
    }

    pub(crate) fn write(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.path(path);
        match self {
            Self::Sim(sim) => sim.write_file(path, bytes),
            Self::Real(..) => {
                std::fs::create_dir_all(path.parent().expect("in the root")).expect("makes");
                std::fs::write(path, bytes).expect("writes");
            }
        }
    }

    pub(crate) fn remove_file(&self, path: impl AsRef<Path>) {
        let path = self.path(path);
        match self {
            Self::Sim(sim) => sim.remove_file(path),
            Self::Real(..) => std::fs::remove_file(path).expect("removes"),
        }
    }

    pub(crate) fn remove_dir(&self, path: impl AsRef<Path>) {
        let path = self.path(path);
        match self {
            Self::Sim(sim) => sim.disk().fs.remove_dir(&path).expect("removes"),
            Self::Real(..) => std::fs::remove_dir(path).expect("removes"),
        }
    }

    /// Whether the store's directory is there.
    pub(crate) fn exists(&self) -> bool {
        match self {
            Self::Sim(sim) => sim.disk().fs.stat(&self.root()).expect("looks").is_some(),
            Self::Real(..) => self.root().exists(),
        }
    }

    /// Close the store and open it again.
    pub(crate) fn reopen(&self, desk: Desk) -> Desk {
        desk.close();
        self.open()
    }

    pub(crate) fn read(&self, path: impl AsRef<Path>) -> Vec<u8> {
        match self {
            Self::Sim(sim) => sim.read_file(self.path(path)),
            Self::Real(..) => std::fs::read(self.path(path)).expect("reads"),
        }
    }

    /// Every file of the store, without the one that is its lock.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let root = self.root();
        let mut files = match self {
            Self::Sim(sim) => sim
                .snapshot()
                .into_iter()
                .filter_map(|(path, bytes)| Some((path.strip_prefix(&root).ok()?.to_owned(), bytes)))
                .collect(),
            Self::Real(..) => files_under(&root),
        };
        files.remove(Path::new(".hold"));
        files
    }

    /// The kernel lets go of a file a moment after the last operation on it has ended, and who opens it again waits for
    /// that.
    pub(crate) fn options(&self) -> Options {
        Options { lock_timeout: Duration::from_mins(1), ..Options::new(self.root()) }
    }

    /// For who is to be refused.
    pub(crate) fn impatient(&self) -> Options {
        Options { lock_timeout: Duration::from_millis(20), ..self.options() }
    }

    pub(crate) fn open(&self) -> Desk {
        self.open_with(self.options()).expect("opens")
    }

    pub(crate) fn open_in(&self, layout: Layout) -> Desk {
        self.open_with(Options { layout, ..self.options() }).expect("opens")
    }

    pub(crate) fn open_with(&self, options: Options) -> Result<Desk, Error> {
        match self {
            Self::Sim(sim) => Ok(Desk::Turned(Box::new(Turned::open(&options, sim.disk())?))),
            Self::Real(_, system) => {
                let (told, news) = channel();
                // Nobody listens any more where the desk is dropped.
                let listener = Box::new(move || told.send(()).unwrap_or_default());
                let store = Store::open(options, system(), listener);
                wait(&news, || match store.state() {
                    State::Opening => ControlFlow::Continue(()),
                    State::Failed(error) => ControlFlow::Break(Some(error)),
                    _ => ControlFlow::Break(None),
                })
                .map_or(Ok(()), Err)?;
                Ok(Desk::Real(store, news))
            }
        }
    }
}

/// Of a directory, and those in it.
pub(crate) fn files_under(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn collect(root: &Path, directory: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(directory).expect("lists") {
            let entry = entry.expect("lists");
            let kind = entry.file_type().expect("it is there");
            if kind.is_dir() {
                collect(root, &entry.path(), files);
            } else if kind.is_file() {
                let path = entry.path().strip_prefix(root).expect("it is below").to_owned();
                files.insert(path, std::fs::read(entry.path()).expect("reads"));
            }
        }
    }
    let mut files = BTreeMap::new();
    collect(root, root, &mut files);
    files
}

fn wait<T>(news: &Receiver<()>, mut look: impl FnMut() -> ControlFlow<T>) -> T {
    loop {
        if let ControlFlow::Break(found) = look() {
            return found;
        }
        news.recv_timeout(Duration::from_mins(1)).expect("something happens");
    }
}

impl Desk {
    pub(crate) fn ask(&mut self, request: Request) -> Result<Answer, Error> {
        self.ask_all([request]).remove(0)
    }

    /// Ask for several things, each before the others are answered.
    pub(crate) fn ask_all(
        &mut self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Vec<Result<Answer, Error>> {
        let requests = (0_u32..).zip(requests);
        let (mut count, mut finished) = (0, Vec::<Finished>::new());
        let requests = requests.inspect(|_| count += 1);
        match self {
            Self::Turned(store) => {
                requests.for_each(|(id, request)| store.request(id, request));
                finished = store.finish();
            }
            Self::Real(store, news) => {
                requests.for_each(|(id, request)| store.request(id, request));
                wait(news, || {
                    store.take(&mut finished);
                    if finished.len() < count { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
            }
        }
        finished.sort_by_key(|finished| finished.id);
        assert!(finished.iter().map(|finished| finished.id).eq((0..).take(count)), "each is answered once");
        finished.into_iter().map(|finished| finished.result).collect()
    }

    pub(crate) fn open_with(
        &mut self,
        partition: &str,
        name: &[u8],
        versions: (u16, u16),
        create: bool,
    ) -> Result<(u32, u16), Error> {
        let (partition, name) = (partition.to_owned(), name.to_vec());
        match self.ask(Request::Open { partition, name, versions, create })? {
            Answer::Opened { blob, version } => Ok((blob, version)),
            other => panic!("{other:?}"),
        }
    }

    /// Version 0, made where there is none.
    pub(crate) fn open(&mut self, partition: &str, name: &[u8]) -> Result<u32, Error> {
        self.open_with(partition, name, (0, 0), true).map(|(blob, _)| blob)
    }

    pub(crate) fn of(&mut self, blob: u32, work: BlobRequest) -> Result<Answer, Error> {
        self.ask(Request::Blob { blob, work })
    }

    pub(crate) fn write(&mut self, blob: u32, offset: u64, bytes: &[u8]) {
        let work = BlobRequest::Write { offset, buffer: Buffer::copy_of(bytes), sync: true, cached: true };
        self.of(blob, work).expect("writes");
    }

    pub(crate) fn size(&self, blob: u32) -> u64 {
        match self {
            Self::Turned(store) => store.size(blob).expect("it is open"),
            Self::Real(store, _) => store.size(blob),
        }
    }

    pub(crate) fn read(&mut self, blob: u32, offset: u64, length: usize, cached: bool) -> Vec<u8> {
        match self.of(blob, BlobRequest::Read { offset, buffer: Buffer::zeroed(length), cached }) {
            Ok(Answer::Read(buffer)) => buffer.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn contents(&mut self, blob: u32) -> Vec<u8> {
        let length = usize::try_from(self.size(blob)).expect("64 bits");
        self.read(blob, 0, length, true)
    }

    pub(crate) fn remove(&mut self, partition: &str, name: Option<&[u8]>) -> Result<(), Error> {
        let (partition, name) = (partition.to_owned(), name.map(<[u8]>::to_vec));
        self.ask(Request::Remove { partition, name }).map(|answer| assert!(matches!(answer, Answer::Done)))
    }

    pub(crate) fn scan(&mut self, partition: &str) -> Result<Vec<Vec<u8>>, Error> {
        match self.ask(Request::Scan { partition: partition.to_owned() })? {
            Answer::Names(names) => Ok(names),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn partitions(&mut self) -> Vec<String> {
        match self.ask(Request::Partitions).expect("lists") {
            Answer::Partitions(partitions) => partitions,
            other => panic!("{other:?}"),
        }
    }

    /// Close, and wait for the end of it.
    pub(crate) fn close(mut self) {
        match &mut self {
            Self::Turned(store) => {
                store.close();
                store.finish();
                assert!(store.is_finished());
            }
            Self::Real(store, news) => {
                store.close();
                wait(news, || match store.state() {
                    State::Closed => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                });
            }
        }
    }
}
