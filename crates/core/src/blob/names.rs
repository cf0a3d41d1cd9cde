//! Names of partitions and of blobs: which there can be, and where they lie.
//!
//! ```text
//!   <root>/<partition>/<the bytes of the blob's name in lower-case hexadecimal>
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error, Result};
use crate::format::blob::file_name;

/// The longest name of a partition, in bytes: the longest a file system's entry can have.
pub(crate) const PARTITION_BYTES_MAX: usize = 255;

/// The longest name of a blob, in bytes: two hexadecimal digits a byte fit a file system's entry.
pub(crate) const NAME_BYTES_MAX: usize = 127;

/// Which blob: the names of its partition and its own. Both are valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    partition: String,
    name: Vec<u8>,
}

impl Key {
    /// # Errors
    /// `ERR_BLOB_PARTITION_NAME_INVALID`, `ERR_BLOB_NAME_INVALID`.
    pub(crate) fn new(partition: String, name: Vec<u8>) -> Result<Self> {
        check_partition(&partition)?;
        if (1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Ok(Self { partition, name });
        }
        let message = format!("a blob's name has 1 to {NAME_BYTES_MAX} bytes, and this one {}", name.len());
        Err(Error::new(Code::BlobNameInvalid, message).with(|details| {
            details.size = Some(name.len() as u64);
            details.limit = Some(NAME_BYTES_MAX as u64);
            details.partition = Some(partition);
            details.name = Some(name);
        }))
    }

    pub(crate) fn partition(&self) -> &str {
        &self.partition
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// Where the blob lies in the store at `root`.
    pub(crate) fn path(&self, root: &Path) -> PathBuf {
        root.join(&self.partition).join(file_name(&self.name))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, file_name(&self.name))
    }
}

/// # Errors
/// `ERR_BLOB_PARTITION_NAME_INVALID`.
pub(crate) fn check_partition(partition: &str) -> Result<()> {
    let is_valid = (1..=PARTITION_BYTES_MAX).contains(&partition.len())
        && partition.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if is_valid {
        return Ok(());
    }
    let message = format!(
        "{partition:?} is no name of a partition: use 1 to {PARTITION_BYTES_MAX} of the characters A-Z, a-z, 0-9, _ and -"
    );
    Err(Error::new(Code::BlobPartitionNameInvalid, message)
        .with(|details| details.partition = Some(partition.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_lies_in_its_partition_under_its_name_in_hexadecimal() {
        for name in [&b"\0"[..], b"hello", &[0xff; NAME_BYTES_MAX]] {
            let key = Key::new("one".to_owned(), name.to_vec()).unwrap();
            let path = key.path(Path::new("/root"));
            assert_eq!(path, Path::new("/root/one").join(file_name(name)));
            assert_eq!(key.to_string(), format!("one/{}", file_name(name)));
        }
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in [vec![], vec![1; NAME_BYTES_MAX + 1]] {
            let error = Key::new("one".to_owned(), name.clone()).unwrap_err();
            assert_eq!((error.code, error.name.as_deref()), (Code::BlobNameInvalid, Some(&*name)));
        }
        for partition in ["partition", "my_partition", "my-partition", "partition123", "A1", &"a".repeat(255)]
        {
            check_partition(partition).unwrap();
        }
        for partition in
            ["my/partition", "my.partition", "my partition", "../escape", "", ".hold", "é", &"a".repeat(256)]
        {
            let error = Key::new(partition.to_owned(), vec![1]).unwrap_err();
            assert_eq!(error.code, Code::BlobPartitionNameInvalid, "{partition:?}");
            assert_eq!(error.partition.as_deref(), Some(partition));
        }
    }
}
