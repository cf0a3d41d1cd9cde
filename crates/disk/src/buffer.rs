//! Memory for the kernel: aligned to the grain, owned by one holder at a time, recycled; or lent by somebody who
//! waits for its return.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Mutex;

use crate::GRAIN;

const TOO_LARGE: &str = "a buffer's capacity fits an allocation";

/// Bytes in memory aligned to [`GRAIN`], with room to grow up to a fixed capacity. Moving it does not move
/// the bytes, which is what lets the kernel hold a pointer to them while a driver owns the value.
///
/// One that is lent ([`Buffer::lent`]) is not aligned, has no room to grow, and is not recycled.
pub struct Buffer {
    memory: NonNull<u8>,
    capacity: usize,
    len: usize,
    /// Of memory that is somebody else's: its drop tells the lender that nobody looks at it any more.
    loan: Option<Loan>,
}

/// What a lender learns the end of its loan by: dropped when the memory is given back, on whichever thread.
pub type Loan = Box<dyn Any + Send + Sync>;

// SAFETY: a `Buffer` is the only owner of its allocation, or the only user of what was lent to it; nothing about it
// is tied to a thread.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads bytes; writing takes `&mut`.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// An empty buffer with room for at least `capacity` bytes, rounded up to whole grains.
    ///
    /// # Panics
    /// Where `capacity` is above what an allocation can be; aborts where there is no memory, as `Vec` does.
    pub fn with_capacity(capacity: usize) -> Self {
        // Checked also where overflow is not: wrapped around it would be a buffer of no bytes.
        let capacity = capacity.max(1).checked_next_multiple_of(GRAIN).expect(TOO_LARGE);
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not zero: `capacity` is at least one grain.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { memory, capacity, len: 0, loan: None }
    }

    /// `len` bytes of memory that is somebody else's. Dropping the buffer gives it back, by dropping `loan`; a driver
    /// does so only after the kernel's last completion.
    ///
    /// # Safety
    /// From now until `loan` is dropped the `len` bytes at `memory` are initialised, stay where they are, and nobody
    /// else reads, writes or frees them.
    pub unsafe fn lent(memory: NonNull<u8>, len: usize, loan: Loan) -> Self {
        Self { memory, capacity: len, len, loan: Some(loan) }
    }

    /// Whether it is memory of somebody else.
    pub fn is_lent(&self) -> bool {
        self.loan.is_some()
    }

    /// A buffer of `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::with_capacity(len);
        buffer.len = len;
        buffer
    }

    /// A buffer that holds a copy of `bytes`.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.extend(bytes);
        buffer
    }

    /// How many bytes fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forget the bytes; the memory stays.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Append `bytes`.
    ///
    /// # Panics
    /// Where they do not fit: the caller sizes its buffers.
    pub fn extend(&mut self, bytes: &[u8]) {
        let start = self.len;
        assert!(bytes.len() <= self.capacity - start, "a buffer of {} bytes is full", self.capacity);
        self.len += bytes.len();
        self[start..].copy_from_slice(bytes);
    }

    /// Set the length: what is added reads as zeros.
    ///
    /// # Panics
    /// Where `len` is above the capacity.
    pub fn resize(&mut self, len: usize) {
        assert!(len <= self.capacity, "a buffer of {} bytes cannot hold {len}", self.capacity);
        let old = self.len;
        self.len = len;
        if len > old {
            self[old..].fill(0);
        }
    }

    /// Set the length, to be overwritten: what is added reads as whatever was there before.
    ///
    /// # Panics
    /// Where `len` is above the capacity.
    pub fn resize_stale(&mut self, len: usize) {
        assert!(len <= self.capacity, "a buffer of {} bytes cannot hold {len}", self.capacity);
        // All of the capacity is initialised.
        self.len = len;
    }

    /// Append zeros up to the next grain.
    pub fn pad_to_grain(&mut self) {
        self.resize(self.len.next_multiple_of(GRAIN));
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, GRAIN).expect(TOO_LARGE)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Lent memory goes back with the loan, which is dropped after this.
        if self.is_lent() {
            return;
        }
        // SAFETY: `memory` came from `alloc_zeroed` with this same layout, and this is its only owner's end.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.capacity)) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `capacity` bytes are allocated and initialised (zeroed at the start, or so lent), `len` is
        // within them, and the borrow of `self` keeps them alive and unwritten.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the exclusive borrow makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {})", self.len, self.capacity)
    }
}

/// Buffers that were used before. Fresh memory costs page faults, which show in a log that writes hundreds of
/// megabytes a second. Keeps at most [`Pool::KEPT`] buffers of at most [`Pool::CAPACITY_MAX`] bytes each, and
/// [`Pool::KEPT_SMALL`] of one grain: of those there may be as many as a store has reads at the disk.
#[derive(Debug, Default)]
pub struct Pool(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    large: Vec<Buffer>,
    /// Of one grain, all alike, so that none is looked for.
    small: Vec<Buffer>,
}

impl Pool {
    /// How many buffers are kept.
    pub const KEPT: usize = 16;

    /// How many of one grain are kept besides: a megabyte.
    pub const KEPT_SMALL: usize = 256;

    /// Larger ones are given back to the system.
    pub const CAPACITY_MAX: usize = 1 << 20;

    /// An empty buffer with room for `capacity` bytes: the smallest kept one that fits, else a new one.
    pub fn take(&self, capacity: usize) -> Buffer {
        let mut kept = self.lock();
        if capacity <= GRAIN
            && let Some(buffer) = kept.small.pop()
        {
            return buffer;
        }
        let large = &mut kept.large;
        let best = (0..large.len())
            .filter(|&index| capacity > GRAIN && large[index].capacity() >= capacity)
            .min_by_key(|&index| large[index].capacity());
        if let Some(index) = best {
            return large.swap_remove(index);
        }
        drop(kept);
        Buffer::with_capacity(capacity)
    }

    /// Take a buffer back. One that is lent goes back to its lender instead.
    pub fn give(&self, mut buffer: Buffer) {
        buffer.clear();
        if buffer.is_lent() || buffer.capacity() > Self::CAPACITY_MAX {
            return;
        }
        let mut kept = self.lock();
        let is_small = buffer.capacity() == GRAIN;
        let (kept, most) =
            if is_small { (&mut kept.small, Self::KEPT_SMALL) } else { (&mut kept.large, Self::KEPT) };
        if kept.len() < most {
            kept.push(buffer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        // A panic elsewhere while the lists were held leaves lists of whole buffers: nothing to repair.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_aligned_and_padding_is_zero_in_recycled_memory() {
        let pool = Pool::default();
        let mut buffer = pool.take(100);
        assert_eq!(buffer.as_ptr() as usize % GRAIN, 0);
        buffer.extend(&[0xff; 5000 - 904]);
        pool.give(buffer);
        let mut buffer = pool.take(GRAIN);
        assert_eq!(buffer.len(), 0);
        buffer.extend(b"abc");
        buffer.pad_to_grain();
        assert_eq!(buffer.len(), GRAIN);
        assert_eq!(&buffer[..3], b"abc");
        assert!(buffer[3..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_capacity_that_no_allocation_has_is_refused() {
        // The last overflows where it is rounded up to the grain.
        for capacity in [isize::MAX as usize, usize::MAX - GRAIN, usize::MAX] {
            assert!(std::panic::catch_unwind(|| Buffer::with_capacity(capacity)).is_err(), "{capacity}");
        }
    }

    #[test]
    fn lent_memory_goes_back_once_and_is_never_recycled() {
        // Goal: the loan ends when the buffer does, and the bytes stay the lender's. Method: memory of this test.
        let mut memory = [7_u8; 100];
        let ended = std::sync::Arc::new(());
        let start = NonNull::new(memory.as_mut_ptr()).unwrap();
        // SAFETY: `memory` outlives both buffers and is not touched before their drop.
        let mut buffer = unsafe { Buffer::lent(start, 100, Box::new(ended.clone())) };
        assert!(buffer.is_lent());
        assert_eq!((buffer.len(), buffer.capacity()), (100, 100));
        buffer[..3].copy_from_slice(b"abc");
        assert_eq!(std::sync::Arc::strong_count(&ended), 2);
        let pool = Pool::default();
        pool.give(buffer);
        assert_eq!(std::sync::Arc::strong_count(&ended), 1);
        let kept = pool.lock();
        assert!(kept.large.is_empty() && kept.small.is_empty());
        drop(kept);
        assert_eq!((&memory[..4], memory[99]), (&b"abc\x07"[..], 7));
    }

    #[test]
    fn the_pool_gives_the_smallest_that_fits_and_keeps_a_bounded_number() {
        let pool = Pool::default();
        pool.give(Buffer::with_capacity(64 * 1024));
        pool.give(Buffer::with_capacity(8 * 1024));
        assert_eq!(pool.take(5000).capacity(), 8 * 1024);
        assert_eq!(pool.take(5000).capacity(), 64 * 1024);
        for _ in 0..2 * Pool::KEPT_SMALL {
            pool.give(Buffer::with_capacity(1));
            pool.give(Buffer::with_capacity(2 * GRAIN));
        }
        pool.give(Buffer::with_capacity(Pool::CAPACITY_MAX + 1));
        let kept = |pool: &Pool| {
            let kept = pool.lock();
            (kept.large.len(), kept.small.len())
        };
        assert_eq!(kept(&pool), (Pool::KEPT, Pool::KEPT_SMALL));
        assert_eq!(pool.take(GRAIN).capacity(), GRAIN);
        assert_eq!(kept(&pool), (Pool::KEPT, Pool::KEPT_SMALL - 1));
    }
}
