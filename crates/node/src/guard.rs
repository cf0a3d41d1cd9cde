//! No panic crosses into Node: unwinding out of a callback that C called would abort the process.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Run `work`; a panic becomes a JavaScript exception.
///
/// What a panic leaves half done is core's to guard: its locks are poisoned, or it is made of whole values.
pub(crate) fn guard<T>(work: impl FnOnce() -> T) -> napi::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let told = told(panic.as_ref()).to_owned();
        // What a payload's own drop might panic with is nobody's business any more.
        std::mem::forget(panic);
        napi::Error::from_reason(format!("ringbolt has a bug, please report it: {told}"))
    })
}

fn told(panic: &(dyn Any + Send)) -> &str {
    if let Some(told) = panic.downcast_ref::<&str>() {
        told
    } else if let Some(told) = panic.downcast_ref::<String>() {
        told
    } else {
        "a panic without a message"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let error = guard(|| panic!("at {}", 7)).map(|(): ()| ()).expect_err("it panicked");
        assert!(error.reason.ends_with("at 7"), "{}", error.reason);
        assert_eq!(guard(|| 7).expect("it did not"), 7);
    }
}
