//! The backends of this machine, each of which does all that another does.

/// Runs every case, a function of what makes a disk, on each backend. `$disk` is how it is made: `disk` or `shared_disk`.
macro_rules! on_each_backend {
    ($disk:ident: $($case:ident)*) => {
        #[cfg(all(target_os = "linux", feature = "ring"))]
        mod on_io_uring {
            $(#[test] fn $case() { super::$case(ringbolt_disk::$disk); })*
        }

        mod on_threads {
            $(#[test] fn $case() { super::$case(ringbolt_disk::pool::$disk); })*
        }
    };
}
