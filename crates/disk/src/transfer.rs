//! How far a read or a write has come. The kernel may move fewer bytes than it was asked to: a short write is
//! normal under a quota or a file size limit, a short read at the end of a file.

use std::ops::Range;

use crate::GRAIN;

/// The kernel moves at most so many bytes at once (`MAX_RW_COUNT`); it is a whole number of grains, so the
/// next piece of a direct transfer begins aligned.
const PIECE_MAX: usize = 0x7fff_f000;
const _: () = assert!(PIECE_MAX.is_multiple_of(GRAIN));

/// Whether all of `len` bytes from `at` have an offset that the kernel can name. Beyond that it reads -1 as "the
/// current position", which a ring would follow.
pub(crate) fn is_in_range(at: u64, len: u64) -> bool {
    at.checked_add(len).is_some_and(|end| i64::try_from(end).is_ok())
}

/// A transfer of `len` bytes, done piece by piece.
///
/// ```text
///   0            start        done                  len
///   ├──────────────┼────────────┼────────────────────┤
///   │ whole grains │ once more  │ yet to be moved    │
///                  └──────── the next piece ─────────┘
/// ```
///
/// On a direct file a piece begins at a multiple of the grain, wherever the piece before it ended: the few
/// bytes that both have are moved twice, the same bytes to the same place. Elsewhere `start` is `done`.
#[derive(Debug)]
pub(crate) struct Transfer {
    len: usize,
    /// Bytes moved, from the beginning, without a gap. Only [`Transfer::advance`] moves it, only forward.
    done: usize,
    grain: usize,
}

impl Transfer {
    pub(crate) fn new(len: usize, direct: bool) -> Self {
        Self { len, done: 0, grain: if direct { GRAIN } else { 1 } }
    }

    /// What to move next; `None` when all is done.
    pub(crate) fn next(&self) -> Option<Range<usize>> {
        let start = self.done - self.done % self.grain;
        (self.done < self.len).then(|| start..self.len.min(start + PIECE_MAX))
    }

    /// The piece from `start` on moved `count` bytes. `false` where that is nothing new: the end of the file
    /// for a read, an error for a write, and for both a loop without end if it were tried again.
    #[must_use]
    pub(crate) fn advance(&mut self, start: usize, count: usize) -> bool {
        let end = start + count;
        assert!(end <= self.len, "the kernel moved {end} of {} bytes", self.len);
        let moved = end > self.done;
        self.done = self.done.max(end);
        moved
    }

    /// Bytes moved so far.
    pub(crate) fn done(&self) -> usize {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_meet_without_a_gap_and_end_with_the_last_byte() {
        let mut transfer = Transfer::new(10, false);
        assert_eq!(transfer.next(), Some(0..10));
        assert!(transfer.advance(0, 3));
        assert_eq!(transfer.next(), Some(3..10));
        assert!(transfer.advance(3, 7));
        assert_eq!((transfer.next(), transfer.done()), (None, 10));
        assert_eq!(Transfer::new(0, false).next(), None);
    }

    #[test]
    fn a_direct_piece_begins_at_a_grain_and_moving_only_old_bytes_is_no_progress() {
        let mut transfer = Transfer::new(2 * GRAIN, true);
        assert!(transfer.advance(0, GRAIN + 512));
        assert_eq!(transfer.next(), Some(GRAIN..2 * GRAIN));
        assert!(!transfer.advance(GRAIN, 512));
        assert_eq!(transfer.done(), GRAIN + 512);
        assert!(transfer.advance(GRAIN, GRAIN));
        assert_eq!(transfer.next(), None);
    }

    #[test]
    fn no_piece_is_larger_than_the_kernel_moves_at_once() {
        let mut transfer = Transfer::new(PIECE_MAX + 5, true);
        assert_eq!(transfer.next(), Some(0..PIECE_MAX));
        assert!(transfer.advance(0, PIECE_MAX));
        assert_eq!(transfer.next(), Some(PIECE_MAX..PIECE_MAX + 5));
    }
}
