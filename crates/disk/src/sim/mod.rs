//! A machine in memory, from a seed: its disk, its clock, its processes, and everything that may go wrong.
//!
//! Nothing here is a thread and nothing sleeps. The same seed and the same calls give the same run, to the
//! byte; what a kernel and a device would decide, the seed decides.
//!
//! ```text
//!            Fs::write_at …       Driver::submit           Driver::wait, any Fs call
//!                 │                     │                        │ at random
//!                 ▼ one step            ▼                        ▼ one step each
//!              ┌──────────────┐   ┌───────────┐  executed  ┌──────────────┐
//!   reads ◀────│  page cache  │◀──│ in flight │───────────▶│    Done      │
//!              └──────┬───────┘   └─────┬─────┘            └──────────────┘
//!            pending  │ sync            │ Dsync: its own sectors
//!                     ▼                 ▼
//!              ┌────────────────────────────┐
//!              │       stable storage       │──── power cut ───▶ what the next boot finds
//!              └────────────────────────────┘
//! ```
//!
//! # Faults, and how each is modelled
//!
//! Always, from the seed:
//!
//! * **Torn and reordered writes.** Each 512-byte sector has its stable bytes and every version written
//!   since. A power cut keeps any one of them, sector by sector, over all files. Lengths likewise.
//! * **Late writes.** A driver's operation happens at some step after its submission, in any order, two
//!   overlapping writes in any order too. If the power is cut before, any of its sectors may have arrived.
//! * **Late news.** Completions come in any order, some rounds after the operation happened.
//! * **A durable write proves only itself.** It makes its own sectors stable, and as much of the length as
//!   is needed to read them.
//! * **A flush proves only the past.** A driver's flush covers what had been executed when it was submitted.
//! * **Names persist in any order.** What is made, renamed and removed in a directory is pending until that
//!   directory is synced; a power cut keeps any subset. Syncing a file does nothing for its name. A rename
//!   is whole or absent.
//! * **A dead owner's writes.** [`Sim::kill`] ends a process, not its operations in flight: they land within
//!   300 steps or two seconds, over whatever is there by then, and hold their file's lock until they have.
//!
//! * **Two ways into one page.** A call that writes through the page cache while a driver's write past it is in flight in
//!   the same pages makes the next flush of the file fail, as Linux does where it cannot drop a page that was changed
//!   beneath such a write.
//!
//! On demand, by [`Sim::fail`]:
//!
//! * **A failed write** leaves any of its sectors in the page cache.
//! * **A failed flush** brings some pending sectors to stable storage and forgets the others: reads show
//!   them until the crash, the next flush succeeds and does nothing for them, writing them again helps.
//!   The length stays pending: a file system keeps that in its journal.
//! * **A failed directory sync** leaves the names pending.
//! * **A short write** is finished by the driver, in another step.
//! * **Any other call** fails without having done anything.
//!
//! By switches of the machine:
//!
//! * **A stalled device** ([`Sim::stall`]): operations stay in flight until it goes on.
//! * **A full disk** ([`Sim::set_capacity`]): allocation, growth and new names answer `ENOSPC`; a write that
//!   does not fit may leave some of what would have.
//! * **Rot** ([`Sim::flip`]): one bit, for good.
//!
//! A test that enumerates instead of drawing lots asks [`Image::undecided`] and says what was kept.
//!
//! Bugs planted below the waist, by [`Sim::lie`]: see [`Lie`].
//!
//! # Not modelled
//!
//! Hard and symbolic links, permissions, renames across directories (`EXDEV`), direct I/O beyond that and what it refuses
//! (a direct write is pending like another), a device that loses what was flushed, and jobs that run beside their driver: a job runs whole
//! within one `wait`, while other operations in flight happen between its calls.

mod choice;
mod content;
mod driver;
mod faults;
mod flight;
mod fs;
mod image;
mod names;
mod transfer;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::faults::{Call, Fault, Lie};
pub use self::image::Image;

use self::content::Content;
use self::driver::SimDriver;
use self::fs::SimFs;
use self::world::World;
use crate::errno::Errno;
use crate::transfer::is_in_range;
use crate::{Backend, Disk, Driver, File, FileKind, Fs, GRAIN};

/// A simulated machine. Clones are the same machine.
///
/// ```
/// use std::path::Path;
///
/// use ringbolt_disk::sim::Sim;
/// use ringbolt_disk::{Buffer, Fs as _, OpenOptions};
///
/// let sim = Sim::new(1);
/// let fs = sim.fs();
/// let file = fs.open(Path::new("/a"), OpenOptions::replace(0o600))?;
/// fs.write_at(&file, 0, &Buffer::copy_of(b"kept"))?;
/// fs.sync(&file)?;
/// fs.sync_dir(Path::new("/"))?;
///
/// assert_eq!(sim.power_cut(2).read_file("/a"), b"kept");
/// # Ok::<(), ringbolt_disk::Error>(())
/// ```
#[derive(Clone)]
pub struct Sim(Shared);

/// The machine, as its processes share it. Held for the length of a call, never while a job runs.
type Shared = Arc<Mutex<World>>;

fn lock(shared: &Shared) -> MutexGuard<'_, World> {
    // A panic while it was held fails the test, which may still look at the machine.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// A machine with an empty disk; `seed` decides everything that is left to chance.
    pub fn new(seed: u64) -> Self {
        Self::over(World::new(seed))
    }

    fn over(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// A new process on this machine, beside those that are there.
    pub fn disk(&self) -> Disk {
        let process = lock(&self.0).start_process();
        let shared = Arc::clone(&self.0);
        Disk {
            fs: Arc::new(SimFs::new(&self.0, process)),
            driver: Box::new(move || Ok(Box::new(SimDriver::new(&shared, process)))),
            backend: Backend::Sim,
        }
    }

    /// The calls of the newest process: that of the last [`Sim::disk`], else one of its own.
    pub fn fs(&self) -> Arc<dyn Fs> {
        Arc::new(SimFs::new(&self.0, self.process()))
    }

    /// Another driver of that process.
    pub fn driver(&self) -> Box<dyn Driver> {
        Box::new(SimDriver::new(&self.0, self.process()))
    }

    fn process(&self) -> u32 {
        let mut world = lock(&self.0);
        if world.processes.contains(&world.process) { world.process } else { world.start_process() }
    }

    /// How many steps this machine has taken since it was booted: calls of [`Fs`], executed operations.
    pub fn steps(&self) -> u64 {
        lock(&self.0).steps
    }

    /// A number of the test's own, say the LSN acknowledged so far, to be found in an [`Image`].
    pub fn set_marker(&self, marker: u64) {
        lock(&self.0).marker = marker;
    }

    /// What [`Sim::set_marker`] said last.
    pub fn marker(&self) -> u64 {
        lock(&self.0).marker
    }

    /// Make a call fail. Faults are forgotten at a power cut, not when a process dies.
    pub fn fail(&self, fault: Fault) {
        lock(&self.0).faults.add(fault);
    }

    /// Forget every fault that has not struck yet.
    pub fn clear_faults(&self) {
        lock(&self.0).faults.clear();
    }

    /// Plant a bug, for good: it is there after a crash too.
    pub fn lie(&self, lie: Lie) {
        lock(&self.0).lies.insert(lie);
    }

    /// While this is so, no driver's operation happens, not even a dead owner's: `wait` lets the clock run
    /// to its deadline. A power cut ends it.
    pub fn stall(&self, is_stalled: bool) {
        lock(&self.0).is_stalled = is_stalled;
    }

    /// How many operations are in flight, those of the dead included.
    pub fn in_flight(&self) -> usize {
        lock(&self.0).flights.len()
    }

    /// How many bytes the disk has; `None`, as at first, is no limit. A file takes whole grains up to the
    /// last one it was allocated or written to, and one must be free for a new name.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.0).capacity = bytes;
    }

    /// Whether files may be opened past the page cache, as at first: then reads of a driver and writes of such
    /// a file that are not in whole grains answer `EINVAL`.
    pub fn set_direct(&self, takes_direct: bool) {
        lock(&self.0).takes_direct = takes_direct;
    }

    /// How long each step takes at most, in microseconds; at first the seed decides.
    pub fn set_step_micros_max(&self, micros: u64) {
        lock(&self.0).step_micros_max = micros;
    }

    /// How likely it is that a write which goes alone is over when its submission returns; 0.5 at first, 1.0 as with
    /// the real drivers.
    pub fn set_alone_at_once(&self, probability: f64) {
        lock(&self.0).alone_at_once = probability;
    }

    /// What [`Fs::has_cheap_dsync`] answers; at first the seed decides.
    pub fn set_cheap_dsync(&self, is_cheap: bool) {
        lock(&self.0).has_cheap_dsync = is_cheap;
    }
}

/// The disk from outside: no step, no fault, stable at once.
impl Sim {
    /// What reads of a file return.
    ///
    /// # Panics
    /// Where there is no such file.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let (world, node) = self.find(path.as_ref());
        world.file(node).to_vec()
    }

    /// Make or replace a file, with the directories that lead to it.
    ///
    /// # Panics
    /// Where a directory has its name.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = path.as_ref();
        let mut world = lock(&self.0);
        world.plant_directories(path.parent().unwrap_or(Path::new("")));
        let (parent, name) = world.names.place(path).expect("a file has a name");
        let node = world.names.find(path).unwrap_or_else(|_| world.number());
        assert!(!world.names.is_directory(node), "{} is a directory", path.display());
        world.names.plant(parent, name.clone(), node);
        world.files.insert(node, Arc::new(Content::stable(name, bytes.as_ref())));
    }

    /// Make a directory, with those that lead to it.
    pub fn make_dir(&self, path: impl AsRef<Path>) {
        lock(&self.0).plant_directories(path.as_ref());
    }

    /// Remove a file.
    ///
    /// # Panics
    /// Where there is no such file.
    pub fn remove_file(&self, path: impl AsRef<Path>) {
        let (mut world, _) = self.find(path.as_ref());
        let (parent, name) = world.names.place(path.as_ref()).expect("a file has a name");
        world.names.uproot(parent, &name);
    }

    /// Turn one bit of a file over, in the page cache and below it.
    ///
    /// # Panics
    /// Where there is no such file, or no such byte in it.
    pub fn flip(&self, path: impl AsRef<Path>, at: u64, bit: u8) {
        let (mut world, node) = self.find(path.as_ref());
        world.file_mut(node).flip(at, bit);
    }

    /// The names in a directory, sorted; none where there is no such directory.
    pub fn list(&self, directory: impl AsRef<Path>) -> Vec<String> {
        let world = lock(&self.0);
        let entries = world.names.find(directory.as_ref()).and_then(|node| world.names.entries(node));
        entries.into_iter().flatten().map(|(name, _)| name.to_string_lossy().into_owned()).collect()
    }

    /// Every file and what reads of it return: two of these are equal where no byte changed.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let world = lock(&self.0);
        let files = world.names.tree().into_iter().filter(|(_, node)| !world.names.is_directory(*node));
        files.map(|(path, node)| (path, world.file(node).to_vec())).collect()
    }

    fn find(&self, path: &Path) -> (MutexGuard<'_, World>, u64) {
        let world = lock(&self.0);
        match world.names.find(path) {
            Ok(node) if !world.names.is_directory(node) => (world, node),
            _ => panic!("there is no file {}", path.display()),
        }
    }
}

/// Power cuts and deaths.
impl Sim {
    /// Capture what a power cut would leave when the counter reaches `step`, before that step's effect. The
    /// run goes on as if nothing had happened.
    pub fn crash_at(&self, step: u64) {
        lock(&self.0).armed.crash_at = Some(step);
    }

    /// What [`Sim::crash_at`] captured, once.
    pub fn take_image(&self) -> Option<Image> {
        lock(&self.0).armed.image.take().map(|image| *image)
    }

    /// What a power cut would leave now.
    pub fn image(&self) -> Image {
        lock(&self.0).image()
    }

    /// The machine after a power cut now; this one goes on.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        self.image().boot(seed)
    }

    /// The newest process dies: its handles are dead and every call of it answers `EIO`. What its drivers
    /// have in flight is not called back.
    pub fn kill(&self) {
        let mut world = lock(&self.0);
        let process = world.process;
        world.kill(process);
    }

    /// As [`Sim::crash_at`]: capture this machine with all of its processes dead.
    pub fn kill_at(&self, step: u64) {
        lock(&self.0).armed.kill_at = Some(step);
    }

    /// What [`Sim::kill_at`] captured, once: a machine of its own. Its steps go on counting.
    pub fn take_kill(&self) -> Option<Self> {
        lock(&self.0).armed.killed.take().map(|world| Self::over(*world))
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sim(step {})", self.steps())
    }
}

/// An open file of a simulated machine: one open file description, unless its process has died meanwhile.
pub struct SimFile {
    shared: Shared,
    description: u64,
    node: u64,
    path: PathBuf,
    is_direct: bool,
}

impl SimFile {
    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it bypasses the page cache.
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// `EINVAL` for what the kernel would not do: bytes without an offset it can name, and on direct files
    /// those that are not in whole grains.
    fn check(&self, at: u64, len: usize) -> Result<(), Errno> {
        let is_whole = at.is_multiple_of(GRAIN as u64) && len.is_multiple_of(GRAIN);
        if is_in_range(at, len as u64) && (is_whole || !self.is_direct) { Ok(()) } else { Err(Errno::INVAL) }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        lock(&self.shared).close(self.description);
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.path.display())
    }
}

/// What is behind a file of this machine.
fn handle<'a>(shared: &Shared, file: &'a File) -> &'a SimFile {
    match &file.0 {
        FileKind::Sim(sim) if Arc::ptr_eq(&sim.shared, shared) => sim,
        _ => panic!("{} was opened on another machine", file.path().display()),
    }
}
