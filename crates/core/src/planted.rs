//! Bugs on purpose. A test that cannot fail shows nothing, so each promise's test is run once with the bug it
//! guards against switched on, and must fail then (`tests/planted.rs`). Without the feature `planted` the
//! switch is a constant and the compiler removes every trace of it.
//!
//! Bugs below the waist (a short write ignored, a directory never synced) are planted by a lying disk instead.

/// Whether the switch is there. Then what goes by megabytes otherwise goes by kilobytes, so that small logs meet with it.
pub(crate) const IS_HERE: bool = cfg!(feature = "planted");

/// A mistake that a log, or the blob store, could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Acknowledge a plain write when it is complete, before its flush.
    AcknowledgeBeforeFlush,
    /// Take a DSYNC write as proof for the plain frames before it.
    DsyncProvesEarlierFrames,
    /// Take a flush of one segment as proof for frames of another.
    FlushProvesOtherSegments,
    /// Leave the offset out of the frame header's checksum.
    NoOffsetInChecksum,
    /// Cut the log at the first bad frame, whatever comes after it.
    CutAtDamage,
    /// Believe what the page cache shows at open without writing it again.
    TrustCachedFrames,
    /// Take LOCK at open but not the segments' locks.
    NoSegmentLocks,
    /// Take a frame of an earlier incarnation for one of this.
    NoIncarnationRule,
    /// Remove and replace names at open before the directory is synced.
    RemoveBeforeDirectorySync,
    /// Replace HEAD at open before the recovered files are synced.
    HeadBeforeSync,
    /// Flush again after a flush that failed.
    RetryFlush,
    /// Take an error of the disk while reading for the end of the log.
    ReadErrorEndsLog,
    /// Remove segments before the HEAD that no longer names them.
    UnlinkBeforeHead,
    /// Truncate before the records below are durable.
    TruncateAheadOfDurability,
    /// Of the key-value log: SYNCED speaks of a write before that is synced.
    SyncedBeforeSync,
    /// Of the key-value log: the cut of a torn tail is not synced.
    CutWithoutSync,
    /// Acknowledge a durable frame while one before it is not.
    AcknowledgeOutOfOrder,
    /// Leave the log's name out of the frame header's checksum.
    NoLogIdInChecksum,
    /// Release LOCK when the log fails, before its last completion.
    UnlockEarly,
    /// Zero a torn tail and never flush the zeros.
    ZeroWithoutSync,
    /// Take records of an epoch that is over: their numbers were taken back, and given out again.
    RefusedNumbersTwice,
    /// Of the blob store: answer for a new blob whose header is not flushed.
    HeaderWithoutSync,
    /// Answer for a new blob whose name is not synced.
    NameWithoutSync,
    /// Answer for a new blob whose partition's name is not synced.
    PartitionWithoutSync,
    /// Answer a sync before its flush.
    SyncBeforeFlush,
    /// Take a flush under way as proof for what is changed after it was submitted.
    FlushProvesLaterChanges,
    /// Forget that a flush failed.
    ForgetFailedFlush,
    /// Forget that a blob was closed with changes that nobody flushed.
    ForgetUnflushed,
    /// Show what a killed process wrote without flushing it.
    TrustUnsettled,
    /// Make the changes of a job in any order.
    ChangesInAnyOrder,
    /// Open a store without its lock.
    NoStoreLock,
    /// Close a store as clean in which not every blob was flushed since an earlier life left it.
    SettleUnseen,
    /// Answer a removal, of a blob or of a partition, before its directory is synced.
    RemovalWithoutSync,
    /// Answer a durable write past the page cache before its flush.
    DirectBeforeFlush,
    /// Make changes through the page cache beside writes past it.
    DirectBesideChanges,
    /// Have writes past the page cache that overlap at the disk at the same time.
    DirectOverlapping,
    /// Write past the page cache by a file that does not hold the blob's lock.
    DirectUnlocked,
}

#[cfg(feature = "planted")]
impl Bug {
    /// Every one that the native log can have.
    pub const ALL: &'static [Self] = &[
        Self::AcknowledgeBeforeFlush,
        Self::DsyncProvesEarlierFrames,
        Self::FlushProvesOtherSegments,
        Self::NoOffsetInChecksum,
        Self::CutAtDamage,
        Self::TrustCachedFrames,
        Self::NoSegmentLocks,
        Self::NoIncarnationRule,
        Self::RemoveBeforeDirectorySync,
        Self::HeadBeforeSync,
        Self::RetryFlush,
        Self::ReadErrorEndsLog,
        Self::UnlinkBeforeHead,
        Self::TruncateAheadOfDurability,
        Self::AcknowledgeOutOfOrder,
        Self::NoLogIdInChecksum,
        Self::UnlockEarly,
        Self::ZeroWithoutSync,
        Self::RefusedNumbersTwice,
    ];

    /// Those that only the key-value log can have.
    pub const KEY_VALUE: &'static [Self] = &[Self::SyncedBeforeSync, Self::CutWithoutSync];

    /// Those that only the blob store can have.
    pub const BLOB: &'static [Self] = &[
        Self::HeaderWithoutSync,
        Self::NameWithoutSync,
        Self::PartitionWithoutSync,
        Self::SyncBeforeFlush,
        Self::FlushProvesLaterChanges,
        Self::ForgetFailedFlush,
        Self::ForgetUnflushed,
        Self::TrustUnsettled,
        Self::ChangesInAnyOrder,
        Self::NoStoreLock,
        Self::SettleUnseen,
        Self::RemovalWithoutSync,
        Self::DirectBeforeFlush,
        Self::DirectBesideChanges,
        Self::DirectOverlapping,
        Self::DirectUnlocked,
    ];
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    std::thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this bug is on, on this thread.
    pub(crate) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Run `body` with this bug on, on this thread.
    pub fn with<R>(bug: Bug, body: impl FnOnce() -> R) -> R {
        struct Off;
        impl Drop for Off {
            fn drop(&mut self) {
                PLANTED.set(None);
            }
        }
        let _off = Off;
        PLANTED.set(Some(bug));
        body()
    }
}

#[cfg(feature = "planted")]
pub(crate) use switch::is;
#[cfg(feature = "planted")]
pub use switch::with;

/// Without the feature no bug is ever on.
#[cfg(not(feature = "planted"))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
