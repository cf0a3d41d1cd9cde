//! The system's disk is durable: each test here fails where a flush, or the flag that stands for one, is left
//! out or its answer is not believed.
//!
//! Two ways to see a flush. procfs has none: whoever asks it for one hears `EINVAL`, so a call that goes well
//! there did not ask. And ext4 on a loop device can be shut down as a power cut would: what was not flushed is
//! gone after the next mount, on any machine where loop devices and the right to mount are to be had.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "these are tests, and unwrapping is how a case says it went wrong")]

mod machine;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use machine::lacks;
use ringbolt_disk::{
    Buffer, Disk, Done, Driver, File, Fs, GRAIN, Op, OpenOptions, Outcome, Result, Token, WriteMode, pool,
};
use rustix::io::Errno;

/// The system's disks: the log's driver, the engine as one, and the pool of threads.
#[cfg(feature = "ring")]
fn disks() -> Vec<Disk> {
    let shared = ringbolt_disk::shared_disk();
    let options = ringbolt_disk::EngineOptions { depth: 64, helpers: 1 };
    vec![disk(), shared.into_disk(options), pool::disk()]
}

#[cfg(not(feature = "ring"))]
fn disks() -> Vec<Disk> {
    vec![disk()]
}

/// The disk that a log has unless told.
fn disk() -> Disk {
    #[cfg(feature = "ring")]
    return ringbolt_disk::disk();
    #[cfg(not(feature = "ring"))]
    pool::disk()
}

/// Do one operation.
fn perform(driver: &mut dyn Driver, op: Op) -> Result<Outcome> {
    driver.submit(Token(1), op);
    let mut out: Vec<Done> = Vec::new();
    while out.is_empty() {
        driver.wait(None, &mut out);
    }
    out.remove(0).outcome
}

fn write(driver: &mut dyn Driver, file: &File, at: u64, bytes: &[u8], mode: WriteMode) -> Result<Outcome> {
    perform(driver, Op::Write { file: file.clone(), at, buffer: Buffer::copy_of(bytes), mode })
}

#[test]
fn a_flush_is_asked_for_and_its_answer_is_told() {
    for disk in disks() {
        let (fs, mut driver) = (disk.fs, (disk.driver)().unwrap());
        let file = fs.open("/proc/version".as_ref(), OpenOptions::READ).unwrap();
        let hot = perform(&mut *driver, Op::Sync { file: file.clone() }).unwrap_err();
        let cold = fs.sync(&file).unwrap_err();
        assert_eq!((hot.syscall, hot.errno), ("fdatasync", Errno::INVAL.raw_os_error()));
        assert_eq!(cold, hot);
        let error = fs.sync_dir("/proc".as_ref()).unwrap_err();
        assert_eq!((error.syscall, error.errno), ("fsync", Errno::INVAL.raw_os_error()));
    }
}

#[test]
fn a_lone_write_that_cannot_be_flushed_fails() {
    // Goal: it asks for RWF_DSYNC, and where that is refused for a flush. Method: this file takes a plain write
    // (of what it holds already), refuses the flag, and has no flush. Without the flag all would seem well. Only by
    // a plain call: a ring writes to such a file in its old way, which knows no flags, and says nothing of it.
    let disk = disk();
    let (fs, mut driver) = (disk.fs, (disk.driver)().unwrap());
    let path = Path::new("/proc/self/coredump_filter");
    let Ok(held) = std::fs::read_to_string(path) else {
        // Kernels without core dumps do not have it.
        return lacks("coredump", "there is no /proc/self/coredump_filter");
    };
    let text = format!("0x{held}");
    let file = fs.open(path, OpenOptions::WRITE).unwrap();
    write(&mut *driver, &file, 0, text.as_bytes(), WriteMode::Plain).unwrap();
    let error = write(&mut *driver, &file, 0, text.as_bytes(), WriteMode::Alone).unwrap_err();
    assert_eq!((error.syscall, error.errno), ("fdatasync", Errno::INVAL.raw_os_error()));
}

/// How far apart writes are that must not share their fate: the page cache flushes whole folios.
const APART: u64 = 4 << 20;

/// A way to make bytes durable.
type Way = fn(&dyn Fs, &mut dyn Driver, &File, u64, &[u8]) -> Result<()>;

const WAYS: [(&str, Way); 4] = [
    ("Dsync", |_, driver, file, at, bytes| write(driver, file, at, bytes, WriteMode::Dsync).map(drop)),
    ("Alone", |_, driver, file, at, bytes| write(driver, file, at, bytes, WriteMode::Alone).map(drop)),
    ("Op::Sync", |_, driver, file, at, bytes| {
        write(driver, file, at, bytes, WriteMode::Plain)?;
        perform(driver, Op::Sync { file: file.clone() }).map(drop)
    }),
    ("Fs::sync", |fs, _, file, at, bytes| {
        fs.write_at(file, at, &Buffer::copy_of(bytes))?;
        fs.sync(file)
    }),
];

#[test]
fn what_was_durable_survives_a_power_cut_and_nothing_else_does() {
    // Goal: each way does what it says, cached and direct. Method: one power cut for each, as a flush for one
    // commits the journal for all. Blocks that were never written show it for direct writes too: until the
    // journal says that they were, they read as zeros. A plain write behind it is the control: it has to be
    // gone, or this would show nothing.
    let Some(volume) = Volume::ext4() else { return };
    for (name, make_durable) in WAYS {
        for direct in [false, true] {
            for disk in disks() {
                let mount = volume.mount().unwrap();
                let (path, plain) = (mount.path().join("file"), mount.path().join("unsynced"));
                let (fs, mut driver) = (disk.fs, (disk.driver)().unwrap());
                let file = fs.open(&path, OpenOptions::replace(0o600).with_direct(direct)).unwrap();
                fs.allocate(&file, 3 * APART).unwrap();
                fs.sync(&file).unwrap();
                fs.sync_dir(mount.path()).unwrap();

                make_durable(&*fs, &mut *driver, &file, APART, &[1; GRAIN]).unwrap();
                write(&mut *driver, &file, 2 * APART, &[2; GRAIN], WriteMode::Plain).unwrap();
                drop(fs.open(&plain, OpenOptions::replace(0o600)).unwrap());
                mount.cut_power();
                drop((file, driver, mount));

                let mount = volume.mount().unwrap();
                let file = fs.open(&path, OpenOptions::READ).unwrap();
                let mut bytes = [0xee; GRAIN];
                assert_eq!(fs.read_at(&file, APART, &mut bytes), Ok(GRAIN));
                assert!(bytes == [1; GRAIN], "{name}, direct={direct}: the bytes are gone");
                assert_eq!(fs.read_at(&file, 2 * APART, &mut bytes), Ok(GRAIN));
                assert!(bytes == [0; GRAIN], "{name}, direct={direct}: what nobody flushed is there");
                assert_eq!(
                    fs.stat(&plain),
                    Ok(None),
                    "{name}, direct={direct}: what nobody flushed is there"
                );
                drop((file, mount));
            }
        }
    }
}

#[test]
fn a_name_survives_a_power_cut_once_its_directory_is_synced() {
    let Some(volume) = Volume::ext4() else { return };
    let fs = disk().fs;
    let mount = volume.mount().unwrap();
    let (kept, lost) = (mount.path().join("kept"), mount.path().join("lost"));
    drop(fs.open(&kept, OpenOptions::replace(0o600)).unwrap());
    fs.sync_dir(mount.path()).unwrap();
    drop(fs.open(&lost, OpenOptions::replace(0o600)).unwrap());
    mount.cut_power();
    drop(mount);
    let mount = volume.mount().unwrap();
    assert!(fs.stat(&kept).unwrap().is_some());
    assert_eq!(fs.stat(&lost), Ok(None), "the control");
    drop(mount);
}

#[test]
fn a_reserved_file_is_written_in_place_where_the_file_system_would_copy_on_write() {
    let Some(volume) = Volume::btrfs() else { return };
    let mount = volume.mount().unwrap();
    let disk = disk();
    let (fs, mut driver) = (disk.fs, (disk.driver)().unwrap());
    let is_in_place = |path: &Path| {
        let flags = rustix::fs::ioctl_getflags(std::fs::File::open(path).unwrap()).unwrap();
        flags.contains(rustix::fs::IFlags::NOCOW)
    };
    for direct in [false, true] {
        let path = mount.path().join("reserved");
        let file = fs.open(&path, OpenOptions::replace(0o600).with_direct(direct)).unwrap();
        fs.allocate(&file, APART).unwrap();
        write(&mut *driver, &file, 0, &[1; GRAIN], WriteMode::Dsync).unwrap();
        assert!(is_in_place(&path), "direct={direct}");
        drop(file);
        fs.remove(&path).unwrap();
    }
    // The control, which is also what cannot be helped: a file that holds something already.
    let path = mount.path().join("written");
    let file = fs.open(&path, OpenOptions::replace(0o600)).unwrap();
    write(&mut *driver, &file, 0, &[1; GRAIN], WriteMode::Plain).unwrap();
    fs.allocate(&file, APART).unwrap();
    assert!(!is_in_place(&path));
    drop((file, driver, mount));
}

/// A file system in a file, to be mounted and treated badly.
struct Volume {
    dir: tempfile::TempDir,
    options: &'static str,
}

impl Volume {
    /// ext4; `None` where this machine does not let us, and nobody requires it to.
    fn ext4() -> Option<Self> {
        // Nothing is committed but by a flush: not by the clock either.
        let options = "loop,commit=900";
        Self::new("loop", &["mkfs.ext4", "-q", "-m", "0"], options)
    }

    /// btrfs, likewise.
    fn btrfs() -> Option<Self> {
        Self::new("btrfs", &["mkfs.btrfs", "-q"], "loop")
    }

    fn new(capability: &str, make: &[&str], options: &'static str) -> Option<Self> {
        let volume = Self { dir: tempfile::tempdir().unwrap(), options };
        let image = std::fs::File::create(volume.image()).unwrap();
        image.set_len(128 << 20).unwrap();
        std::fs::create_dir(volume.place()).unwrap();
        let made = said(Command::new(make[0]).args(&make[1..]).arg(volume.image()));
        // Once it was mounted, what goes wrong is no lack of the machine.
        match made.and_then(|()| volume.mount()) {
            Ok(_) => Some(volume),
            Err(why) => {
                lacks(capability, &why);
                None
            }
        }
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn mount(&self) -> std::result::Result<Mount, String> {
        let place = self.place();
        said(Command::new("mount").args(["-o", self.options]).arg(self.image()).arg(&place))?;
        Ok(Mount { place })
    }
}

/// A mounted volume, until it is dropped.
struct Mount {
    place: PathBuf,
}

impl Mount {
    fn path(&self) -> &Path {
        &self.place
    }

    /// What is not on the device by now is lost; nothing more gets there until the next mount.
    fn cut_power(&self) {
        /// `EXT4_IOC_SHUTDOWN`, of a `u32`.
        const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
        /// Without writing the journal first.
        const NO_LOG_FLUSH: u32 = 2;

        let directory = std::fs::File::open(&self.place).unwrap();
        // SAFETY: the number is of a call that takes a pointer to a `u32`, which is what the setter gives it.
        let shutdown = unsafe { rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
        // SAFETY: as above; the kernel reads the number before the call returns and keeps no pointer to it.
        unsafe { rustix::ioctl::ioctl(directory.as_fd(), shutdown) }.unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The kernel lets go of a ring's files a moment after their last completion.
        let start = Instant::now();
        while let Err(why) = said(Command::new("umount").arg(&self.place)) {
            if start.elapsed() > Duration::from_mins(1) {
                let _ = said(Command::new("umount").arg("--lazy").arg(&self.place));
                assert!(std::thread::panicking(), "{why}");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Run a program; where that fails, what it said.
fn said(command: &mut Command) -> std::result::Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", text.trim())) }
}
