//! Durable writes past the page cache, many of one blob at the disk at a time.
//!
//! ```text
//!   a crowd of writes to be durable, one flush at a time:
//!
//!   through the page cache   ├ copy, copy, copy … ─▶ write back all ─▶ flush ┤├ copy, copy … the next wait for the whole of it
//!   past it                  ├ write ┤├ write ┤├ write ┤├ write ┤              the disk is never without work
//!                               ├ write ┤├ write ┤├ write ┤
//!                                   ├ flush ┤├ flush ┤├ flush ┤               each for all that are complete
//! ```
//!
//! What goes this way: a write that is to be durable, of whole grains of the file, inside what was written before (a write
//! that fills a hole or extends the file changes its map, and the kernel makes such wait for each other), as one of a crowd.
//! One by itself is sooner through the page cache, where one thread writes and flushes in one go.
//!
//! # Beside other changes
//!
//! * While one is under way, no change through the page cache is made, and the other way round. The two meet in pages, and
//!   the kernel keeps more than one page as one: where a write past the cache finds a page changed beneath it, it cannot
//!   drop it, says that data may be corrupt and fails the next flush.
//! * Two that overlap go one after another, in the order of the calls.
//! * A read through the cache that begins after it was answered sees it: the kernel drops the pages it wrote over before it
//!   completes it.

use std::ops::Range;

use slab::Slab;

use crate::planted::{self, Bug};

/// So many of a blob are at the disk: more than any disk takes at a time, and few enough to be compared with each other.
const UNDER_WAY_MAX: usize = 128;

/// With so many that wait to be durable at a time it is a crowd.
const CROWD: usize = 2;

/// The writes of one blob that pass by the page cache.
#[derive(Debug, Default)]
pub(crate) struct Direct {
    /// Where they go in the file.
    under_way: Slab<Range<u64>>,
    /// How many waited when the last flush ended, those that it answered among them; or half of what it was before, where
    /// that is more. They come again, and one by one.
    crowd: usize,
    /// Up to here the file is known to have no holes. It decides what is quick, not what is right.
    written: u64,
}

impl Direct {
    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// How many are under way.
    pub(crate) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether a write to there may begin beside those under way.
    pub(crate) fn has_room(&self, place: &Range<u64>) -> bool {
        let overlaps = |other: &Range<u64>| {
            place.start < other.end && other.start < place.end && !planted::is(Bug::DirectOverlapping)
        };
        self.under_way.len() < UNDER_WAY_MAX && !self.under_way.iter().any(|(_, other)| overlaps(other))
    }

    /// It begins. Names it until its end.
    pub(crate) fn begin(&mut self, place: Range<u64>) -> usize {
        assert!(self.has_room(&place), "writes over each other go one after another");
        self.under_way.insert(place)
    }

    /// Its last completion is in.
    pub(crate) fn end(&mut self, number: usize) {
        self.under_way.remove(number);
    }

    /// Whether so many that wait now, or those that waited for the last flushes, are a crowd.
    pub(crate) fn is_crowded(&self, waiting: usize) -> bool {
        waiting.max(self.crowd) >= CROWD
    }

    /// A flush ended for which, or behind which, so many waited.
    pub(crate) fn flushed(&mut self, waiting: usize) {
        self.crowd = waiting.max(self.crowd / 2);
    }

    /// The file has no hole up to there.
    pub(crate) fn found_written(&mut self, len: u64) {
        self.written = len;
    }

    /// A place was written through the page cache.
    pub(crate) fn wrote(&mut self, place: &Range<u64>) {
        if place.start <= self.written {
            self.written = self.written.max(place.end);
        }
    }

    /// The file was cut, or extended by a hole, to so many bytes.
    pub(crate) fn resized(&mut self, len: u64) {
        self.written = self.written.min(len);
    }

    /// Whether all of a place was written before.
    pub(crate) fn is_written(&self, place: &Range<u64>) -> bool {
        place.end <= self.written
    }
}
