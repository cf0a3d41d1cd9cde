//! What a check of a whole log found, in either format.

use std::time::Duration;

/// How a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is as it should be.
    Clean,
    /// Everything that was acknowledged is there; behind it stand writes that were not finished.
    Torn,
    /// Something that had been durable is missing or changed.
    Damage,
    /// A version or another product's file that we cannot judge.
    Unsupported,
}

impl Verdict {
    /// The name users know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Torn => "torn",
            Self::Damage => "damage",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Every byte of a log was read; this is what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it stands. With several findings, the worst: unsupported, damage, torn.
    pub verdict: Verdict,
    /// Intact records that are served.
    pub records: u64,
    /// Bytes of them, without prefixes and headers.
    pub bytes: u64,
    /// Files with records, the one that goes on included.
    pub segments: u64,
    /// The oldest LSN that is served; one more than `last_lsn` where there is none.
    pub first_lsn: u64,
    /// The newest LSN found intact.
    pub last_lsn: u64,
    /// What an open would set aside and cut.
    pub torn: Option<Torn>,
    /// Every place that is damaged, in order.
    pub damage: Vec<Damage>,
    /// How long it took.
    pub duration: Duration,
}

/// A torn tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The number of the file it begins in.
    pub segment: u64,
    /// Where in it.
    pub offset: u64,
    /// How many bytes of it are not zero or stand before one that is not.
    pub bytes: u64,
}

/// A damaged place, or what is unsupported there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The number of the file; `None` where it is HEAD, or what it should name.
    pub segment: Option<u64>,
    /// Where in it.
    pub offset: Option<u64>,
    /// The first LSN that cannot be served for it.
    pub first_lsn: u64,
    /// The last one.
    pub last_lsn: u64,
    /// What is wrong.
    pub reason: String,
}
