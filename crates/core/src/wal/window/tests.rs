//! The window over a file that is known, on a disk in memory and on a real one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use ringbolt_disk::sim::{Call, Fault, Sim};
use ringbolt_disk::{Buffer, Fs, OpenOptions, file_system};
use tempfile::TempDir;

use super::{ROOM, WINDOW_BYTES, WINDOW_BYTES_FIRST, Window};
use crate::error::Code;
use crate::format::GRAIN;

/// A frame that fits the room.
const STEP: usize = ROOM / 2 - 100;

const NEW: OpenOptions = OpenOptions::replace(0o600);

/// Bytes that tell where they belong.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index / 4096 * 31 + index / 7) as u8).collect()
}

/// A file on each disk, and another beside it.
struct Files {
    bytes: Vec<u8>,
    other: Vec<u8>,
    sim: Sim,
    _real: TempDir,
    places: [(Arc<dyn Fs>, PathBuf); 2],
}

impl Files {
    fn of(len: usize) -> Self {
        let (bytes, sim, real) = (pattern(len), Sim::new(1), TempDir::new().expect("a directory"));
        let other: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        sim.make_dir("/log");
        let places = [(sim.fs(), PathBuf::from("/log/file")), (file_system(), real.path().join("file"))];
        for (fs, path) in &places {
            for (path, bytes) in [(path, &bytes), (&beside(path), &other)] {
                let file = fs.open(path, NEW).expect("a new file");
                fs.write_at(&file, 0, &Buffer::copy_of(bytes)).expect("room for it");
            }
        }
        Self { bytes, other, sim, _real: real, places }
    }
}

fn beside(path: &Path) -> PathBuf {
    path.with_file_name("other")
}

fn window(fs: &dyn Fs, path: &Path, bytes: usize) -> Window {
    Window::open(fs, path, bytes as u64, true).expect("the file is there")
}

/// In order, as frames of these lengths follow each other: first the beginning of each, then all of it.
fn read_in_order(fs: &dyn Fs, window: &mut Window, bytes: &[u8], lengths: impl IntoIterator<Item = usize>) {
    let mut at = 0;
    for len in lengths {
        let end = bytes.len().min(at + len);
        let beginning = end.min(at + 64);
        assert!(window.get(fs, at as u64, beginning - at).expect("reads") == &bytes[at..beginning], "{at}");
        assert!(window.get(fs, at as u64, end - at).expect("reads") == &bytes[at..end], "{at}..{end}");
        at = end.next_multiple_of(GRAIN as usize).min(bytes.len());
    }
}

#[test]
fn frames_of_every_size_are_read_in_order_from_file_to_file() {
    // Goal: what was read ahead meets what was held, whatever lies across, and memory that is handed on holds nothing of
    // the file before. Method: sizes around the window's and the room's, each through two files.
    let (window_bytes, grain) = (WINDOW_BYTES as usize, GRAIN as usize);
    let files = Files::of(5 * window_bytes + 3 * grain);
    for len in [
        1,
        grain - 1,
        3 * grain,
        grain + 100,
        ROOM - 1,
        ROOM,
        ROOM + grain,
        window_bytes - grain,
        window_bytes,
        window_bytes + 1,
        window_bytes + ROOM + grain,
        2 * window_bytes,
    ] {
        for (fs, path) in &files.places {
            let mut rest = None;
            for (path, bytes) in [(path, &files.bytes), (&beside(path), &files.other)] {
                let mut window = window(&**fs, path, bytes.len()).following(rest);
                // All of the file, in more steps than that takes.
                let frames = bytes.len() / len.next_multiple_of(grain) + 1;
                read_in_order(&**fs, &mut window, bytes, std::iter::repeat_n(len, frames));
                rest = Some(window.close());
            }
        }
    }
}

#[test]
fn what_the_file_lacks_reads_as_zeros_whatever_the_memory_held() {
    let window_bytes = WINDOW_BYTES as usize;
    let files = Files::of(4 * window_bytes);
    for (fs, path) in &files.places {
        let mut whole = window(&**fs, path, files.bytes.len());
        read_in_order(&**fs, &mut whole, &files.bytes, std::iter::repeat_n(STEP, 200));
        let file = fs.open(path, OpenOptions::WRITE).expect("the file is there");
        let kept = 2 * window_bytes + 100;
        fs.set_len(&file, kept as u64).expect("it is cut");
        let mut cut = files.bytes.clone();
        cut[kept..].fill(0);
        let mut window = window(&**fs, path, cut.len()).following(Some(whole.close()));
        read_in_order(&**fs, &mut window, &cut, std::iter::repeat_n(STEP, 200));
    }
}

#[test]
fn what_changed_is_read_anew_once_it_is_forgotten() {
    let window_bytes = WINDOW_BYTES as usize;
    let files = Files::of(4 * window_bytes);
    for (fs, path) in &files.places {
        let mut window = window(&**fs, path, files.bytes.len());
        // Far enough for the next to be read ahead.
        let mut at = 0;
        while window.ahead.is_none() {
            window.get(&**fs, at, STEP).expect("reads");
            at += STEP as u64;
        }
        let file = fs.open(path, OpenOptions::WRITE).expect("the file is there");
        let fresh = vec![0xab; files.bytes.len()];
        fs.write_at(&file, 0, &Buffer::copy_of(&fresh)).expect("room for it");
        window.forget();
        // From where it began too, which what was read ahead does not follow any more.
        at = window.start;
        while at + STEP as u64 <= fresh.len() as u64 {
            assert!(window.get(&**fs, at, STEP).expect("reads") == &fresh[..STEP], "{at}");
            at += STEP as u64;
        }
    }
}

#[test]
fn a_read_that_fails_is_told_when_it_is_due_and_made_again() {
    // Goal: what was read before is served first, also where the failure was met ahead. Method: each of the first reads
    // fails; the file's beginning is read in steps that need one of them each.
    let files = Files::of(4 * WINDOW_BYTES as usize);
    let (fs, path) = &files.places[0];
    for struck in 0..4 {
        let mut window = window(&**fs, path, files.bytes.len());
        files.sim.fail(Fault::new(Call::Read).skip(struck));
        let mut errors = 0;
        for at in (0..files.bytes.len()).step_by(64) {
            let held = window.end();
            let bytes = match window.get(&**fs, at as u64, 64) {
                Ok(bytes) => bytes,
                Err(error) => {
                    assert_eq!((error.code, held), (Code::WalIo, at as u64), "{struck}");
                    errors += 1;
                    window.get(&**fs, at as u64, 64).expect("it fails once")
                }
            };
            assert!(bytes == &files.bytes[at..at + 64], "{struck}, {at}");
        }
        assert_eq!(errors, 1, "{struck}");
    }
}

#[test]
fn who_looks_at_the_beginning_only_reads_no_more() {
    let files = Files::of(4 * WINDOW_BYTES as usize);
    let (fs, path) = &files.places[0];
    let mut window = window(&**fs, path, files.bytes.len());
    window.get(&**fs, GRAIN, 64).expect("reads");
    assert!(window.ahead.is_none());
    assert_eq!(window.buffer.len() as u64, WINDOW_BYTES_FIRST);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Anywhere, forwards and back, of any length.
    #[test]
    fn every_place_reads_as_what_is_there(
        steps in prop::collection::vec((0_u32..4, any::<u32>(), 1_usize..3 * ROOM), 1..40),
    ) {
        let files = Files::of(3 * WINDOW_BYTES as usize + 4321);
        for (fs, path) in &files.places {
            let mut window = window(&**fs, path, files.bytes.len());
            let mut at = 0;
            for &(kind, place, len) in &steps {
                match kind {
                    // On from where the last one ended, mostly.
                    0 => at = place as usize % files.bytes.len(),
                    1 => window.forget(),
                    _ => {}
                }
                let end = files.bytes.len().min(at + if kind == 2 { len } else { len % (ROOM / 3) });
                prop_assert!(window.get(&**fs, at as u64, end - at).expect("reads") == &files.bytes[at..end]);
                at = if end == files.bytes.len() { 0 } else { end };
            }
        }
    }
}
