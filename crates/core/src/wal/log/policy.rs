//! How frames become durable on this log's device.

use crate::wal::handle::SyncMode;

/// How frames become durable, resolved for this log's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Every durable frame carries its own flush or forced unit access.
    Dsync,
    /// Every frame is written plainly; one flush at a time covers all that are complete.
    Fdatasync,
    /// A lone frame carries its own flush, overlapping ones share: for devices without forced unit access,
    /// where each DSYNC completion through the ring waits in a kernel worker behind whatever runs there.
    Hybrid,
}

impl Policy {
    pub(crate) fn resolve(mode: SyncMode, has_cheap_dsync: bool) -> Self {
        match mode {
            SyncMode::Dsync => Self::Dsync,
            SyncMode::Fdatasync => Self::Fdatasync,
            SyncMode::Auto if has_cheap_dsync => Self::Dsync,
            SyncMode::Auto => Self::Hybrid,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dsync => "dsync",
            Self::Fdatasync => "fdatasync",
            Self::Hybrid => "dsync alone, fdatasync overlapped",
        }
    }
}
