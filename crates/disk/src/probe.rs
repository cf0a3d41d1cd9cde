//! May we use `io_uring` here? A reason, not a bool.
//!
//! [`choose`] is asked once for each service, at its open. It asks the kernel each time: limits are raised and used up,
//! sysctls are set, and a thread may be under a filter that others are not. The answer costs less than the directory
//! syncs of the open that follows it.

use std::fmt;
use std::sync::Arc;

use crate::os::file_system;
use crate::{Backend, Disk, Error, Fs, Result, SharedDisk, pool};

/// Which backend somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// `io_uring` where it can be had, else threads.
    Auto,
    /// `io_uring`, or an error.
    IoUring,
    /// Threads, whatever else there is.
    Threads,
}

impl Preference {
    /// By the name users know it by: `auto`, or a [`Backend::name`].
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "io_uring" => Some(Self::IoUring),
            "threads" => Some(Self::Threads),
            _ => None,
        }
    }
}

/// What a service is to run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The backend.
    pub backend: Backend,
    /// Why it is not `io_uring`, in words for people, where that was wanted if it could be had.
    pub reason: Option<String>,
}

impl Choice {
    /// The disk of this system on this backend, for a service with a thread of its own.
    pub fn disk(&self) -> Disk {
        match self.backend {
            #[cfg(all(target_os = "linux", feature = "ring"))]
            Backend::IoUring => crate::ring::disk(),
            _ => pool::disk(),
        }
    }

    /// The same for a service whose callers submit on their own threads.
    pub fn shared_disk(&self) -> SharedDisk {
        match self.backend {
            #[cfg(all(target_os = "linux", feature = "ring"))]
            Backend::IoUring => crate::ring::shared_disk(),
            _ => pool::shared_disk(),
        }
    }
}

/// A disk whose hot side is chosen by the service, on its own thread: to ask the kernel takes a moment. It is a [`Disk`]
/// or a [`SharedDisk`] that there is already, or what a [`Preference`] comes to.
pub struct NewDisk<D> {
    /// The cold side: the same, whichever is chosen.
    pub fs: Arc<dyn Fs>,
    source: Source<D>,
}

enum Source<D> {
    Ready(D),
    Preferred(Preference, fn(&Choice) -> D),
}

impl<D: Send + 'static> NewDisk<D> {
    fn ready(fs: &Arc<dyn Fs>, disk: D) -> Self {
        Self { fs: Arc::clone(fs), source: Source::Ready(disk) }
    }

    fn preferred(preference: Preference, disk_of: fn(&Choice) -> D) -> Self {
        Self { fs: file_system(), source: Source::Preferred(preference, disk_of) }
    }

    /// Choose, and let `build` make the hot side of what was chosen; answers that, and [`Choice::reason`].
    ///
    /// The ring that [`choose`] tried is gone by then, and what it took may be used up when another is made in its place:
    /// where nobody asked for it by name threads are built instead.
    ///
    /// # Errors
    /// As [`choose`]; what `build` answers.
    pub fn build<H>(self, mut build: impl FnMut(D) -> Result<H>) -> Result<(H, Option<String>)> {
        let (preference, disk_of) = match self.source {
            Source::Ready(disk) => return Ok((build(disk)?, None)),
            Source::Preferred(preference, disk_of) => (preference, disk_of),
        };
        let choice = choose(preference)?;
        match build(disk_of(&choice)) {
            Err(error) if preference == Preference::Auto && choice.backend == Backend::IoUring => {
                let choice = Choice { backend: Backend::Threads, reason: Some(reason(&error)) };
                Ok((build(disk_of(&choice))?, choice.reason))
            }
            built => Ok((built?, choice.reason)),
        }
    }
}

impl From<Disk> for NewDisk<Disk> {
    fn from(disk: Disk) -> Self {
        Self::ready(&disk.fs.clone(), disk)
    }
}

impl From<SharedDisk> for NewDisk<SharedDisk> {
    fn from(disk: SharedDisk) -> Self {
        Self::ready(&disk.fs.clone(), disk)
    }
}

impl From<Preference> for NewDisk<Disk> {
    fn from(preference: Preference) -> Self {
        Self::preferred(preference, Choice::disk)
    }
}

impl From<Preference> for NewDisk<SharedDisk> {
    fn from(preference: Preference) -> Self {
        Self::preferred(preference, Choice::shared_disk)
    }
}

impl<D> fmt::Debug for NewDisk<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewDisk")
    }
}

/// Choose the backend of a service.
///
/// # Errors
/// Where `io_uring` is wanted by name and cannot be had: which call was refused, and what to do about it.
pub fn choose(preference: Preference) -> Result<Choice> {
    let ring = || Choice { backend: Backend::IoUring, reason: None };
    let threads = |reason| Choice { backend: Backend::Threads, reason };
    match preference {
        Preference::Threads => Ok(threads(None)),
        Preference::IoUring => try_io_uring().map(|_| ring()),
        Preference::Auto => Ok(match try_io_uring() {
            Ok(_) => ring(),
            Err(error) => threads(Some(reason(&error))),
        }),
    }
}

/// What this machine says of `io_uring`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release, as `uname -r` tells it; elsewhere than on Linux the system's name.
    pub kernel: String,
    /// What its `io_uring` can do beyond what we need, by the kernel's own names (`IORING_FEAT_*`). Empty where there is
    /// none.
    pub features: Vec<&'static str>,
    /// Why there is none, in words for people.
    pub reason: Option<String>,
}

impl Report {
    /// Whether `io_uring` can be had.
    pub fn is_available(&self) -> bool {
        self.reason.is_none()
    }
}

/// Ask the kernel for `io_uring`: a ring, the operations we need, and a write, a flush and a read through it.
pub fn probe() -> Report {
    let (features, reason) = match try_io_uring() {
        Ok(features) => (features, None),
        Err(error) => (Vec::new(), Some(reason(&error))),
    };
    Report { kernel: kernel(), features, reason }
}

/// The advice first, as that is what a person looks for.
fn reason(error: &Error) -> String {
    match &error.hint {
        Some(hint) => {
            let cause = Error { hint: None, ..error.clone() };
            format!("{hint} ({cause})")
        }
        None => error.to_string(),
    }
}

#[cfg(all(target_os = "linux", feature = "ring"))]
pub(crate) use self::linux::{explained, must_know};
#[cfg(all(target_os = "linux", feature = "ring"))]
use self::linux::{kernel, try_io_uring};

#[cfg(not(all(target_os = "linux", feature = "ring")))]
fn try_io_uring() -> Result<Vec<&'static str>> {
    let hint = if cfg!(target_os = "linux") {
        "this build of ringbolt has no io_uring (the feature `ring`)".to_owned()
    } else {
        format!("io_uring is Linux's, and this is {}", kernel())
    };
    Err(Error::new("io_uring_setup", "", crate::Errno::NOSYS).hint(hint))
}

#[cfg(all(target_os = "linux", not(feature = "ring")))]
fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

#[cfg(not(target_os = "linux"))]
fn kernel() -> String {
    std::env::consts::OS.to_owned()
}

#[cfg(all(target_os = "linux", feature = "ring"))]
mod linux {
    //! What the kernel says, and what it says about itself.

    use rustix::io::Errno;
    use rustix::process::{Resource, getrlimit};

    use crate::error::errno_of;
    use crate::{Error, Result, ring};

    /// What a filter has to let through.
    const ALLOW: &str = "let it allow io_uring_setup, io_uring_enter and io_uring_register (in Docker: a profile of \
                         your own by --security-opt seccomp=…)";

    /// Use `io_uring` for real; what it can do beyond what we need.
    pub(super) fn try_io_uring() -> Result<Vec<&'static str>> {
        ring::trial::run()
    }

    pub(super) fn kernel() -> String {
        rustix::system::uname().release().to_string_lossy().into_owned()
    }

    /// `syscall` of `io_uring` was refused: what a person can do about it.
    pub(crate) fn explained(syscall: &'static str, errno: i32) -> Error {
        let error = Error::new(syscall, "", errno);
        let of = |resource| match getrlimit(resource).current {
            Some(limit) => limit.to_string(),
            None => "unlimited".to_owned(),
        };
        match Errno::from_raw_os_error(errno) {
            Errno::PERM | Errno::ACCESS => error.hint(Surroundings::now().why_forbidden()),
            Errno::NOSYS => error.hint(Surroundings::now().why_missing()),
            Errno::NOMEM => error.hint(format!(
                "there is no memory for a ring: it counts as locked memory, and RLIMIT_MEMLOCK is {}; raise that \
                 (ulimit -l), or the memory limit of this container",
                of(Resource::Memlock),
            )),
            Errno::MFILE => error.hint(format!(
                "descriptors are used up: RLIMIT_NOFILE is {}; raise it (ulimit -n)",
                of(Resource::Nofile),
            )),
            Errno::NFILE => error.hint("the system's descriptors are used up: raise the sysctl fs.file-max"),
            _ => error,
        }
    }

    /// What the kernel's answer to a probe means: the operations that we need and it does not know.
    ///
    /// # Errors
    /// `ENOSYS`, with advice, where there are some. Linux 5.6 brought the probe and the reads and writes together.
    pub(crate) fn must_know(unknown: std::io::Result<Vec<&'static str>>) -> Result<()> {
        let unknown = match unknown.map_err(|error| errno_of(&error)) {
            Ok(unknown) if unknown.is_empty() => return Ok(()),
            Ok(unknown) => unknown.join(", "),
            Err(errno) if errno == Errno::INVAL.raw_os_error() => "probe".to_owned(),
            Err(errno) => return Err(explained("io_uring_register", errno)),
        };
        Err(Error::new("io_uring_register", "", Errno::NOSYS.raw_os_error()).hint(format!(
            "the io_uring of this kernel ({}) lacks what we need of it ({unknown}): Linux 5.6 or later has that",
            kernel(),
        )))
    }

    /// What the kernel tells of itself and of this thread.
    #[derive(Clone, Debug, Default)]
    struct Surroundings {
        release: String,
        /// The sysctl `kernel.io_uring_disabled`, since Linux 6.6.
        disabled: Option<String>,
        /// The sysctl `kernel.io_uring_group`: who may where `disabled` is 1.
        group: Option<String>,
        /// `/proc/thread-self/status`.
        status: String,
    }

    impl Surroundings {
        fn now() -> Self {
            let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
            Self {
                release: kernel(),
                disabled: read("/proc/sys/kernel/io_uring_disabled"),
                group: read("/proc/sys/kernel/io_uring_group"),
                status: read("/proc/thread-self/status").unwrap_or_default(),
            }
        }

        /// What stands behind `name` in the thread's status.
        fn status(&self, name: &str) -> &str {
            let line = self.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_default().trim()
        }

        fn is_filtered(&self) -> bool {
            self.status("Seccomp") == "2"
        }

        /// Whether this thread is one of those that 1 does not keep out.
        fn is_excepted(&self) -> bool {
            const CAP_SYS_ADMIN: u32 = 21;
            let capabilities = u64::from_str_radix(self.status("CapEff"), 16).unwrap_or_default();
            let mut groups =
                self.status("Groups").split_whitespace().chain(self.status("Gid").split_whitespace());
            capabilities >> CAP_SYS_ADMIN & 1 == 1
                || self.group.as_deref().is_some_and(|group| groups.any(|one| one == group))
        }

        fn why_forbidden(&self) -> String {
            match self.disabled.as_deref() {
                Some("2") => "io_uring is disabled on this machine: the sysctl kernel.io_uring_disabled is 2; set it \
                              to 0"
                    .to_owned(),
                // Within a user namespace one may have the capability, and it counts for nothing.
                Some("1") if !self.is_excepted() || !self.is_filtered() => {
                    "io_uring is disabled on this machine but for the privileged: the sysctl \
                     kernel.io_uring_disabled is 1; set it to 0, or let this process run with the group that \
                     kernel.io_uring_group names"
                        .to_owned()
                }
                _ if self.is_filtered() => {
                    format!(
                        "io_uring is blocked by a seccomp filter, as Docker's default profile has one; {ALLOW}"
                    )
                }
                _ => "io_uring is forbidden here, and neither by a seccomp filter nor by the sysctl \
                      kernel.io_uring_disabled: see what a security module (SELinux, AppArmor) or the sandbox has \
                      against it"
                    .to_owned(),
            }
        }

        fn why_missing(&self) -> String {
            let release = &self.release;
            if self.is_older_than(5, 6) {
                format!(
                    "this kernel ({release}) has no io_uring that we could use: Linux 5.6 or later has it"
                )
            } else if self.is_filtered() {
                format!("io_uring is hidden by a seccomp filter; {ALLOW}")
            } else {
                format!(
                    "this kernel ({release}) has no io_uring: it was built without (CONFIG_IO_URING), or is a \
                     sandbox's, such as gVisor's"
                )
            }
        }

        fn is_older_than(&self, major: u32, minor: u32) -> bool {
            let mut numbers = self.release.split(|other: char| !other.is_ascii_digit());
            let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
            next().zip(next()).is_some_and(|release| release < (major, minor))
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn surroundings(disabled: &str, status: &str) -> Surroundings {
            let disabled = Some(disabled.to_owned()).filter(|text| !text.is_empty());
            let (release, group) = ("6.8.0-45-generic".to_owned(), Some("77".to_owned()));
            Surroundings { release, disabled, group, status: status.to_owned() }
        }

        #[test]
        fn what_refuses_a_ring_is_explained() {
            for (errno, advice) in [
                (Errno::NOMEM, "RLIMIT_MEMLOCK is "),
                (Errno::MFILE, "RLIMIT_NOFILE is "),
                (Errno::NFILE, "fs.file-max"),
            ] {
                let error = explained("io_uring_setup", errno.raw_os_error());
                assert!(error.to_string().starts_with("io_uring_setup: "), "{error}");
                assert!(error.to_string().contains(advice), "{error}");
            }
        }

        #[test]
        fn who_forbids_is_told_apart() {
            const FILTERED: &str = "Name:\tnode\nSeccomp:\t2\nSeccomp_filters:\t1";
            const FREE: &str = "Name:\tnode\nSeccomp:\t0\nSeccomp_filters:\t0";
            let admin = format!("CapEff:\t000001ffffffffff\n{FILTERED}");
            let member = format!("Gid:\t5\t5\t5\t5\nGroups:\t4 77 \n{FILTERED}");
            let nobody = format!("Gid:\t5\t5\t5\t5\nGroups:\t4 777 \nCapEff:\t0000000000000000\n{FILTERED}");
            for (disabled, status, advice) in [
                ("2", FILTERED, "kernel.io_uring_disabled is 2"),
                ("2", FREE, "kernel.io_uring_disabled is 2"),
                ("1", FREE, "kernel.io_uring_disabled is 1"),
                ("1", &nobody, "kernel.io_uring_disabled is 1"),
                ("1", &admin, "seccomp=…"),
                ("1", &member, "seccomp=…"),
                ("0", FILTERED, "seccomp=…"),
                ("", FILTERED, "seccomp=…"),
                ("0", FREE, "SELinux"),
                ("", "", "SELinux"),
            ] {
                let why = surroundings(disabled, status).why_forbidden();
                assert!(why.contains(advice), "{disabled}, {status}: {why}");
            }
        }

        #[test]
        fn why_there_is_none_is_told_apart() {
            for (release, status, advice) in [
                ("4.19.0-27-amd64", "Seccomp:\t2", "(4.19.0-27-amd64) has no io_uring that we could use"),
                ("5.4.0", "", "Linux 5.6"),
                ("5.6.0", "", "gVisor"),
                ("6.18.44", "Seccomp:\t2", "seccomp filter"),
                ("10.1", "Seccomp:\t0", "CONFIG_IO_URING"),
                ("unknown", "", "CONFIG_IO_URING"),
            ] {
                let surroundings = Surroundings { release: release.to_owned(), ..surroundings("0", status) };
                let why = surroundings.why_missing();
                assert!(why.contains(advice), "{release}, {status}: {why}");
            }
        }

        #[test]
        fn operations_that_are_missing_are_named() {
            assert_eq!(must_know(Ok(Vec::new())), Ok(()));
            let no_probe = std::io::Error::from_raw_os_error(Errno::INVAL.raw_os_error());
            for (unknown, named) in [(Ok(vec!["read", "write"]), "(read, write)"), (Err(no_probe), "(probe)")]
            {
                let error = must_know(unknown).unwrap_err();
                assert_eq!((error.syscall, error.errno), ("io_uring_register", Errno::NOSYS.raw_os_error()));
                assert!(error.to_string().contains(named) && error.to_string().contains("5.6"), "{error}");
            }
            let forbidden = std::io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
            assert_eq!(must_know(Err(forbidden)).unwrap_err().errno, Errno::MFILE.raw_os_error());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_backends() {
        assert_eq!(Preference::named("auto"), Some(Preference::Auto));
        assert_eq!(Preference::named(Backend::IoUring.name()), Some(Preference::IoUring));
        assert_eq!(Preference::named(Backend::Threads.name()), Some(Preference::Threads));
        assert_eq!(Preference::named("libuv"), None);
    }

    #[test]
    fn advice_comes_first_and_the_call_behind_it() {
        let error = Error::new("open", "/file", 2);
        assert_eq!(reason(&error), error.to_string());
        assert_eq!(reason(&error.clone().hint("make it")), format!("make it ({error})"));
    }

    #[test]
    #[cfg(not(all(target_os = "linux", feature = "ring")))]
    fn without_a_ring_every_service_runs_on_threads_and_is_told_why() {
        let choice = choose(Preference::Auto).unwrap();
        let refused = choose(Preference::IoUring).unwrap_err();
        assert_eq!((choice.backend, choice.reason.as_deref()), (Backend::Threads, Some(&*reason(&refused))));
        assert_eq!(
            (choice.disk().backend, choice.shared_disk().backend),
            (Backend::Threads, Backend::Threads)
        );
        assert_eq!((refused.syscall, refused.errno), ("io_uring_setup", crate::Errno::NOSYS.raw_os_error()));
        assert_eq!(probe(), Report { kernel: kernel(), features: Vec::new(), reason: choice.reason });
        assert!(!kernel().is_empty());
    }
}
