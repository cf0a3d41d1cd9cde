//! JavaScript's memory, lent to the kernel: the one room of this floor with unsafe code.
//!
//! ```text
//!   JavaScript thread                                     threads of the engine
//!
//!   a Buffer that nobody else has seen
//!   lend ── Lent, loans + 1 ── Buffer::lent ────────────▶ the kernel writes into it
//!                                                         its last completion: the Buffer is dropped, loans - 1
//!   taken ◀───────────────────────────────── answer ───── only then
//!   Lent dropped; the facade hands the Buffer out
//! ```
//!
//! A reference keeps the object, not the bytes: `transfer()` would free them under a running read. So what is lent is
//! memory that the facade allocated for this and hands to nobody before the answer. When an environment ends, its
//! cleanup hook returns only after the last loan has ended; afterwards the memory is gone.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use napi::bindgen_prelude::{BufferSlice, JsValue};
use napi::{Env, sys};
use ringbolt_disk::Buffer;

/// How much of an environment's memory is lent.
#[derive(Debug, Default)]
pub(crate) struct Loans(AtomicUsize);

impl Loans {
    /// How many pieces are lent now.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }

    fn begin(self: &Arc<Self>) -> Loan {
        self.0.fetch_add(1, Ordering::Relaxed);
        Loan(Arc::clone(self))
    }
}

/// One piece of memory that is lent; its drop, on whichever thread, ends that.
#[derive(Debug)]
struct Loan(Arc<Loans>);

impl Drop for Loan {
    fn drop(&mut self) {
        // Release: whoever reads the count sees the bytes that were written.
        let before = self.0.0.fetch_sub(1, Ordering::Release);
        debug_assert!(before > 0, "a loan ends once");
    }
}

/// Keeps a JavaScript object alive. Not `Send`: made and dropped on its environment's thread.
#[derive(Debug)]
pub(crate) struct Reference {
    env: sys::napi_env,
    raw: NonNull<sys::napi_ref__>,
}

impl Reference {
    fn to(env: Env, object: &BufferSlice<'_>) -> napi::Result<Self> {
        let env = env.raw();
        let mut raw = std::ptr::null_mut();
        let value = object.raw();
        // SAFETY: `env` is this call's environment, on its thread; `value` is one of its objects; `raw` is ours.
        let status = unsafe { sys::napi_create_reference(env, value, 1, &raw mut raw) };
        match NonNull::new(raw) {
            Some(raw) if status == sys::Status::napi_ok => Ok(Self { env, raw }),
            _ => Err(napi::Error::from_reason("no reference to a buffer could be made")),
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: made by `to` in this environment, which has not ended (its cleanup hook drops what is left), and
        // deleted only here, on the same thread: a `Reference` is not `Send`. Of a status nothing would follow.
        unsafe { sys::napi_delete_reference(self.env, self.raw.as_ptr()) };
    }
}

/// What keeps memory where it is while it is lent.
#[derive(Debug)]
pub(crate) struct Lent {
    reference: ManuallyDrop<Reference>,
    loan: Weak<Loan>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        // An engine that broke down answers and keeps the memory, since the kernel may still write to it. Then it stays
        // where it is until the environment ends, which waits for the loan.
        if self.loan.strong_count() == 0 {
            // SAFETY: only here, and the field is not used after a drop.
            unsafe { ManuallyDrop::drop(&mut self.reference) };
        }
    }
}

/// Lend all of `bytes` until the buffer is dropped. What is returned with it is dropped after that.
///
/// The facade's part: nobody else has seen this buffer, nor does before its answer was taken.
pub(crate) fn lend(
    env: Env,
    bytes: &mut BufferSlice<'_>,
    loans: &Arc<Loans>,
) -> napi::Result<(Buffer, Lent)> {
    let reference = ManuallyDrop::new(Reference::to(env, bytes)?);
    let loan = Arc::new(loans.begin());
    let len = bytes.len();
    let memory = NonNull::new(bytes.as_mut_ptr()).expect("a slice has an address");
    // SAFETY: the owner is the buffer's backing store, outside V8's moving heap since Node-API asked for its address;
    // the object that holds it is kept by `reference`, and no JavaScript but the facade's, which does not touch it,
    // can reach it to detach, resize or read it. That ends when the answer is taken, which core promises to give only
    // after it dropped the buffer (or, broken, keeps it: then the reference stays too), or with the environment, whose
    // cleanup hook waits for `loans`. The bytes were made by another language's allocator, and have values.
    let buffer = unsafe { Buffer::lent(memory, len, Box::new(Arc::clone(&loan))) };
    Ok((buffer, Lent { reference, loan: Arc::downgrade(&loan) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loan_is_counted_until_it_ends() {
        let loans = Arc::new(Loans::default());
        let (one, other) = (loans.begin(), loans.begin());
        assert_eq!(loans.count(), 2);
        drop(one);
        std::thread::spawn(move || drop(other)).join().expect("it ends");
        assert_eq!(loans.count(), 0);
    }
}
