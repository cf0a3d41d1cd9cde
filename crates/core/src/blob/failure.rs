//! The errors of blobs, said once: what was being done, to which blob, what the disk said, what to do next.

use std::path::Path;

use crate::blob::names::Key;
use crate::error::{Code, Error};

/// A call of the system failed while `doing` something to a blob.
pub(crate) fn of_blob(code: Code, doing: &str, key: &Key, error: ringbolt_disk::Error) -> Error {
    about(&Error::of_disk(code, &format!("{doing} the blob {key}"), error), key)
}

/// A call of the system failed while `doing` something that is about no blob in particular.
pub(crate) fn of_store(code: Code, doing: &str, error: ringbolt_disk::Error) -> Error {
    Error::of_disk(code, doing, error)
}

/// The same error, as this blob met it.
pub(crate) fn about(error: &Error, key: &Key) -> Error {
    error.clone().with(|details| {
        details.partition = Some(key.partition().to_owned());
        details.name = Some(key.name().to_vec());
    })
}

/// The same error, as it was met in this partition.
pub(crate) fn in_partition(error: &Error, partition: &str) -> Error {
    error.clone().with(|details| details.partition = Some(partition.to_owned()))
}

/// A flush of this blob failed before, or a write of it may still land.
pub(crate) fn poisoned(key: &Key, first: &Error) -> Error {
    let message = format!(
        "a flush of the blob {key} failed before, or the end of a write was not heard of, so what was written may be \
         lost: remove it, or open the store again and check it ({first})"
    );
    about(&Error::new(Code::BlobPoisoned, message).because(first), key)
}

/// The handle was closed.
pub(crate) fn closed() -> Error {
    Error::new(Code::BlobClosed, "the blob's handle is closed: open the blob again")
}

/// The store was closed.
pub(crate) fn store_closed(root: &Path) -> Error {
    Error::new(Code::BlobStoreClosed, format!("the store in {} is closed", root.display())).path(root)
}

/// A read reaches past the end.
pub(crate) fn insufficient(key: &Key, offset: u64, length: u64, size: u64) -> Error {
    let message = format!(
        "reading {length} bytes at offset {offset} of the blob {key}: it has {size} bytes, so read less"
    );
    about(&Error::new(Code::BlobInsufficientLength, message), key).with(|details| {
        details.offset = Some(offset);
        details.length = Some(length);
        details.size = Some(size);
    })
}

/// An offset, or an end, is beyond what JavaScript's numbers hold exactly.
pub(crate) fn overflow(key: &Key, offset: u64, length: u64) -> Error {
    let message = format!(
        "{length} bytes at offset {offset} of the blob {key} end beyond 2^53 - 1, the largest offset there is"
    );
    about(&Error::new(Code::BlobOffsetOverflow, message), key).with(|details| {
        details.offset = Some(offset);
        details.length = Some(length);
    })
}

/// A job of ours did not come to its end.
pub(crate) fn job(error: Option<ringbolt_disk::Error>) -> Error {
    match error {
        Some(error) => Error::of_disk(Code::BlobStoreIo, "working for the store", error),
        None => bug("a job left nothing behind"),
    }
}

/// A mistake of ours.
pub(crate) fn bug(what: &str) -> Error {
    Error::new(Code::BlobStoreIo, format!("ringbolt has a bug, please report it: {what}"))
}

/// Whether an open that failed so may have made something by then, a partition or a file.
pub(crate) fn may_have_made(error: &Error) -> bool {
    !matches!(
        error.code,
        Code::BlobMissing
            | Code::BlobPartitionMissing
            | Code::BlobPartitionNameInvalid
            | Code::BlobNameInvalid
            | Code::BlobCorrupt
            | Code::BlobVersionMismatch
    )
}
