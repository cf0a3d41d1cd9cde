//! What is done to names, as straight-line calls of the disk, each on a helper thread. Nothing here makes anything
//! durable but [`flush`]: that is the machine's, which does it once for all who wait.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ringbolt_disk::{Access, Buffer, Create, Entry, EntryKind, File, Fs, OpenOptions};

use crate::blob::failure::{self, in_partition};
use crate::blob::names::{self, Key};
use crate::directory;
use crate::error::{Code, Error, Result};
use crate::format::blob::{Finding, HEADER_BYTES_MAX, Header, Layout, parse_file_name};
use crate::lock;

/// How a blob is to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Of a blob that is made.
    pub(crate) layout: Layout,
    /// The least and the largest version; one that is made gets the largest.
    pub(crate) versions: (u16, u16),
    /// Whether to make it, and its partition.
    pub(crate) create: bool,
    pub(crate) file_mode: u32,
    pub(crate) lock_timeout: Duration,
    /// Whether what is there may be in the page cache only, and not on its way to the disk any more.
    pub(crate) is_suspect: bool,
}

/// A blob's file, open and locked, with a whole header.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) file: File,
    pub(crate) header: Header,
    /// Bytes of data.
    pub(crate) size: u64,
    /// Its header was written by this call: neither that nor its name is durable yet.
    pub(crate) is_new: bool,
    /// Its partition was made by this call, or during it: its name may not be durable yet.
    pub(crate) partition_is_new: bool,
}

/// Open a blob. One whose creation was interrupted is completed; any other that is not whole is left as it is.
///
/// # Errors
/// `ERR_BLOB_PARTITION_MISSING`, `ERR_BLOB_PARTITION_CREATION_FAILED`, `ERR_BLOB_MISSING`, `ERR_BLOB_OPEN_FAILED`,
/// `ERR_BLOB_CORRUPT`, `ERR_BLOB_VERSION_MISMATCH`, `ERR_BLOB_SYNC_FAILED`.
pub(crate) fn open(fs: &dyn Fs, root: &Path, key: &Key, wanted: &Wanted) -> Result<Prepared> {
    check_versions(key, wanted.versions)?;
    let partition_is_new = make_partition(fs, root, key, wanted)?;
    let path = key.path(root);
    let opening = |error| failure::of_blob(Code::BlobOpenFailed, "opening", key, error);
    let kind = fs.stat(&path).map_err(opening)?;
    if kind == Some(EntryKind::Other) {
        return Err(refused(key, &path, "it is no regular file; move it elsewhere"));
    }
    if kind.is_none() && !wanted.create {
        return Err(missing(key, &path));
    }
    let create = if wanted.create { Create::IfMissing(wanted.file_mode) } else { Create::Never };
    let file = match fs.open(&path, OpenOptions { access: Access::ReadWrite, create, direct: false }) {
        Err(error) if error.is_not_found() => return Err(missing(key, &path)),
        opened => opened.map_err(opening)?,
    };
    // Before a byte is looked at: a killed process's writes may still be on their way, and hold it.
    if !lock::take(fs, &file, fs.now().after(wanted.lock_timeout), &|| true).map_err(opening)? {
        let reason =
            "it is locked, by another store or by the last writes of a process that was killed; try again";
        return Err(refused(key, &path, reason));
    }
    let len = fs.len(&file).map_err(opening)?;
    let mut start = vec![0; len.min(HEADER_BYTES_MAX as u64) as usize];
    let count = fs.read_at(&file, 0, &mut start).map_err(opening)?;
    if count < start.len() {
        return Err(corrupt(
            key,
            &path,
            format!("it ended at {count} while its first {} bytes were read", start.len()),
        ));
    }
    let (header, is_new) = match Header::examine(&start, len) {
        Finding::Whole(header) => (header, false),
        Finding::Interrupted(named) => {
            let header = Header { layout: named.unwrap_or(wanted.layout), version: wanted.versions.1 };
            // What is longer is cut first, durably: zeros behind a header would be data.
            if len > header.layout.data_at() {
                fs.set_len(&file, 0).map_err(opening)?;
                fs.sync(&file)
                    .map_err(|error| failure::of_blob(Code::BlobSyncFailed, "opening", key, error))?;
            }
            fs.write_at(&file, 0, &Buffer::copy_of(&header.encode())).map_err(opening)?;
            (header, true)
        }
        Finding::Corrupt(reason) => return Err(corrupt(key, &path, reason)),
    };
    check_version(key, header.version, wanted.versions)?;
    // An earlier life's flush of it may have failed: then the page cache shows a header that the disk does not have, and a
    // flush now would do nothing for it (durability rule 2). Data behind a lost header would be corrupt. So the header is
    // written once more, and the flush that follows proves it.
    if wanted.is_suspect && !is_new {
        fs.write_at(&file, 0, &Buffer::copy_of(&header.encode())).map_err(opening)?;
    }
    let size = if is_new { 0 } else { len - header.layout.data_at() };
    Ok(Prepared { file, header, size, is_new, partition_is_new })
}

/// Whether there is a version that its opener takes. Nothing is to be made for one that there is not.
fn check_versions(key: &Key, (least, largest): (u16, u16)) -> Result<()> {
    if least <= largest {
        return Ok(());
    }
    let message = format!("opening the blob {key}: no version is in `versions`, {least} to {largest}");
    Err(failure::about(&Error::new(Code::BlobVersionMismatch, message), key)
        .with(|details| details.expected = Some(format!("{least} to {largest}"))))
}

/// Whether a blob's version is one that its opener takes.
///
/// # Errors
/// `ERR_BLOB_VERSION_MISMATCH`.
pub(crate) fn check_version(key: &Key, found: u16, (least, largest): (u16, u16)) -> Result<()> {
    if (least..=largest).contains(&found) {
        return Ok(());
    }
    let expected = if least == largest { least.to_string() } else { format!("{least} to {largest}") };
    let message = format!(
        "the blob {key} has version {found}, expected {expected}: open it with `versions` that include it"
    );
    Err(failure::about(&Error::new(Code::BlobVersionMismatch, message), key).with(|details| {
        details.found = Some(found.to_string());
        details.expected = Some(expected);
    }))
}

/// Remove a blob's name.
///
/// # Errors
/// `ERR_BLOB_PARTITION_MISSING`, `ERR_BLOB_PARTITION_CORRUPT`, `ERR_BLOB_MISSING`, `ERR_BLOB_OPEN_FAILED`.
pub(crate) fn remove(fs: &dyn Fs, root: &Path, key: &Key) -> Result<()> {
    let removing = |error| failure::of_blob(Code::BlobOpenFailed, "removing", key, error);
    directory_of(fs, root, key.partition(), removing)?;
    let path = key.path(root);
    match fs.remove(&path) {
        Err(error) if error.is_not_found() => Err(missing(key, &path)),
        removed => removed.map_err(removing),
    }
}

/// Remove a partition and all blobs in it. One that has a directory in it is left as it is. The names of the blobs that
/// are gone, also where it fails, go to `gone`.
///
/// # Errors
/// `ERR_BLOB_PARTITION_MISSING`, `ERR_BLOB_PARTITION_CORRUPT`, `ERR_BLOB_STORE_IO`.
pub(crate) fn remove_partition(
    fs: &dyn Fs,
    root: &Path,
    partition: &str,
    gone: &mut HashSet<Vec<u8>>,
) -> Result<()> {
    let (directory, entries) = list(fs, root, partition)?;
    if let Some(stray) = entries.iter().find(|entry| entry.kind == EntryKind::Directory) {
        return Err(stray_entry(partition, &directory, &stray.name.to_string_lossy(), "is a directory"));
    }
    let removing = |error| {
        in_partition(&failure::of_store(Code::BlobStoreIo, "removing the partition", error), partition)
    };
    for entry in entries {
        match fs.remove(&directory.join(&entry.name)) {
            Err(error) if !error.is_not_found() => return Err(removing(error)),
            _ => gone.extend(entry.name.to_str().and_then(parse_file_name)),
        }
    }
    fs.remove_dir(&directory).map_err(removing)
}

/// The names of the blobs in a partition, sorted.
///
/// # Errors
/// `ERR_BLOB_PARTITION_MISSING`, `ERR_BLOB_PARTITION_CORRUPT`, `ERR_BLOB_STORE_IO`.
pub(crate) fn scan(fs: &dyn Fs, root: &Path, partition: &str) -> Result<Vec<Vec<u8>>> {
    let (directory, entries) = list(fs, root, partition)?;
    let mut found = Vec::new();
    for entry in entries {
        // Not ours, or ours for a moment only.
        let Some(name) = entry.name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        if entry.kind != EntryKind::File {
            return Err(stray_entry(partition, &directory, name, "is no regular file"));
        }
        let Some(bytes) = parse_file_name(name) else {
            return Err(stray_entry(partition, &directory, name, "is not a name in lower-case hexadecimal"));
        };
        found.push(bytes);
    }
    // Hexadecimal digits sort as what they stand for, so they are sorted already, as the entries were.
    assert!(found.is_sorted(), "entries are listed in order");
    Ok(found)
}

/// The names of the partitions, sorted. What else lies in the root is skipped.
///
/// # Errors
/// `ERR_BLOB_STORE_IO`.
pub(crate) fn partitions(fs: &dyn Fs, root: &Path) -> Result<Vec<String>> {
    let entries = fs.list(root);
    let entries =
        entries.map_err(|error| failure::of_store(Code::BlobStoreIo, "listing the partitions", error))?;
    let directories = entries.into_iter().filter(|entry| entry.kind == EntryKind::Directory);
    let names = directories.filter_map(|entry| entry.name.into_string().ok());
    Ok(names.filter(|name| names::check_partition(name).is_ok()).collect())
}

/// Whether every blob of the store is one of these. Where that cannot be told it is not.
pub(crate) fn are_among(fs: &dyn Fs, root: &Path, blobs: &HashSet<Arc<Key>>) -> bool {
    let is_among = |partition: &str, entry: &Entry| {
        let name = entry.name.to_str().and_then(parse_file_name);
        // What is no blob's name is never opened.
        let key = name.and_then(|name| Key::new(partition.to_owned(), name).ok());
        key.is_none_or(|key| blobs.contains(&key))
    };
    let are_among = |partition: &String| {
        let entries = fs.list(&root.join(partition));
        entries.is_ok_and(|entries| entries.iter().all(|entry| is_among(partition, entry)))
    };
    partitions(fs, root).is_ok_and(|partitions| partitions.iter().all(are_among))
}

/// Flush a blob that is closed. One that is gone needs no flush.
///
/// # Errors
/// `ERR_BLOB_OPEN_FAILED`, `ERR_BLOB_SYNC_FAILED`.
pub(crate) fn flush(fs: &dyn Fs, root: &Path, key: &Key) -> Result<()> {
    match fs.open(&key.path(root), OpenOptions::READ) {
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(failure::of_blob(Code::BlobOpenFailed, "opening", key, error)),
        Ok(file) => {
            fs.sync(&file).map_err(|error| failure::of_blob(Code::BlobSyncFailed, "flushing", key, error))
        }
    }
}

/// Says whether it made it.
fn make_partition(fs: &dyn Fs, root: &Path, key: &Key, wanted: &Wanted) -> Result<bool> {
    let partition = key.partition();
    let directory = root.join(partition);
    let failed = |error| {
        let doing = format!("making the partition {partition}");
        in_partition(&failure::of_store(Code::BlobPartitionCreationFailed, &doing, error), partition)
    };
    match fs.stat(&directory).map_err(failed)? {
        Some(EntryKind::Directory) => Ok(false),
        Some(_) => Err(no_directory(Code::BlobPartitionCreationFailed, partition, &directory)),
        None if wanted.create => match fs.create_dir(&directory, directory::mode(wanted.file_mode)) {
            Ok(()) => Ok(true),
            // By somebody else just now, who may not have synced its name.
            Err(error) if error.is_exists() => Ok(true),
            Err(error) => Err(failed(error)),
        },
        None => Err(partition_missing(partition, &directory)),
    }
}

/// Where a partition lies. Nothing is listed or removed through what only leads to a directory, as a symbolic link
/// does: what is behind it is not the store's.
fn directory_of(
    fs: &dyn Fs,
    root: &Path,
    partition: &str,
    failed: impl FnOnce(ringbolt_disk::Error) -> Error,
) -> Result<PathBuf> {
    let directory = root.join(partition);
    match fs.stat(&directory).map_err(failed)? {
        Some(EntryKind::Directory) => Ok(directory),
        Some(_) => Err(no_directory(Code::BlobPartitionCorrupt, partition, &directory)),
        None => Err(partition_missing(partition, &directory)),
    }
}

fn list(fs: &dyn Fs, root: &Path, partition: &str) -> Result<(PathBuf, Vec<Entry>)> {
    let listing = |error| {
        let doing = format!("listing the partition {partition}");
        in_partition(&failure::of_store(Code::BlobStoreIo, &doing, error), partition)
    };
    let directory = directory_of(fs, root, partition, listing)?;
    match fs.list(&directory) {
        Err(error) if error.is_not_found() => Err(partition_missing(partition, &directory)),
        Err(error) => Err(listing(error)),
        Ok(entries) => Ok((directory, entries)),
    }
}

/// Not for the system's reasons, for ours.
fn refused(key: &Key, path: &Path, reason: &str) -> Error {
    let message = format!("opening the blob {key} in {}: {reason}", path.display());
    failure::about(&Error::new(Code::BlobOpenFailed, message).path(path), key)
        .with(|details| details.reason = Some(reason.to_owned()))
}

fn missing(key: &Key, path: &Path) -> Error {
    failure::about(&Error::new(Code::BlobMissing, format!("there is no blob {key}")).path(path), key)
}

fn partition_missing(partition: &str, directory: &Path) -> Error {
    let message = format!("there is no partition {partition}");
    in_partition(&Error::new(Code::BlobPartitionMissing, message).path(directory), partition)
}

fn no_directory(code: Code, partition: &str, directory: &Path) -> Error {
    let message = format!(
        "the partition {partition} cannot be used: {} is no directory; move it elsewhere",
        directory.display()
    );
    in_partition(&Error::new(code, message).path(directory), partition)
        .with(|details| details.reason = Some("no directory".to_owned()))
}

fn corrupt(key: &Key, path: &Path, reason: String) -> Error {
    let message = format!(
        "the blob {key} is corrupt, and was left as it is: {reason}; restore {} from a copy, or remove the blob",
        path.display()
    );
    failure::about(&Error::new(Code::BlobCorrupt, message).path(path), key)
        .with(|details| details.reason = Some(reason))
}

fn stray_entry(partition: &str, directory: &Path, name: &str, what: &str) -> Error {
    let message = format!("the partition {partition} is corrupt: {name:?} {what}; move it elsewhere");
    in_partition(&Error::new(Code::BlobPartitionCorrupt, message).path(directory.join(name)), partition).with(
        |details| {
            details.found = Some(name.to_owned());
            details.reason = Some(format!("{name:?} {what}"));
        },
    )
}

#[cfg(test)]
mod tests;
