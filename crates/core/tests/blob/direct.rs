//! Durable writes of whole pages, many at a time: those pass by the page cache.

use ringbolt_core::blob::{Answer, BlobRequest, Layout, Request};
use ringbolt_core::{Code, Error};
use ringbolt_disk::sim::{Call, Fault, Sim};
use ringbolt_disk::{Buffer, Errno};

use crate::desk::{Desk, Place, everywhere};

const PAGE: usize = 4096;
const PAGES: usize = 16;

fn write(blob: u32, offset: usize, bytes: &[u8], sync: bool) -> Request {
    let (offset, buffer) = (offset as u64, Buffer::copy_of(bytes));
    Request::Blob { blob, work: BlobRequest::Write { offset, buffer, sync, cached: true } }
}

/// Each page once, filled with this, durably.
fn crowd(blob: u32, byte: u8) -> impl Iterator<Item = Request> {
    (0..PAGES).map(move |page| write(blob, page * PAGE, &[byte; PAGE], true))
}

/// All of them, filled with this.
fn pages(byte: u8) -> Vec<u8> {
    vec![byte; PAGES * PAGE]
}

fn is_done(result: &Result<Answer, Error>) -> bool {
    matches!(result, Ok(Answer::Done))
}

/// A blob in which crowds have been, so that the next one passes by the page cache from its first write on: on the
/// simulated disk where it tells that the file has no holes.
fn settled(desk: &mut Desk) -> u32 {
    let blob = desk.open("one", b"name").expect("makes");
    desk.write(blob, 0, &pages(1));
    for _ in 0..3 {
        assert!(desk.ask_all(crowd(blob, 2)).iter().all(is_done));
    }
    blob
}

/// On a simulated disk, of which there are some, where writes pass by the page cache.
fn on_sims(test: impl Fn(&Sim, &Place, Desk, u32)) {
    let mut count = 0;
    for seed in 0..16 {
        let sim = Sim::new(seed);
        let place = Place::Sim(sim.clone());
        let mut desk = place.open();
        let blob = settled(&mut desk);
        sim.stall(true);
        let Desk::Turned(store) = &mut desk else { unreachable!("it is simulated") };
        crowd(blob, 3).zip(0..).for_each(|(request, id)| store.request(id, request));
        // A job would make them in spite of that.
        let is_direct = sim.in_flight() == PAGES;
        sim.stall(false);
        assert!(store.finish().iter().all(|finished| is_done(&finished.result)));
        if is_direct {
            count += 1;
            test(&sim, &place, desk, blob);
        }
    }
    assert!(count > 3, "{count} disks had no holes");
}

#[test]
fn writes_on_both_ways_and_resizes_happen_in_the_order_of_the_calls() {
    everywhere(|place| {
        for layout in [Layout::V1, Layout::V0] {
            let place = place.another();
            let mut desk = place.open_in(layout);
            let blob = settled(&mut desk);
            let mut expected = desk.contents(blob);
            for round in 0..20_usize {
                let mut requests = Vec::new();
                for index in 0..40_usize {
                    let byte = (round * 40 + index) as u8;
                    let at = (index * 7 + round) % 12 * PAGE;
                    let (offset, bytes, sync) = match index % 13 {
                        5 => (at + 100, vec![byte; 3000], true),
                        8 => (at, vec![byte; PAGE], false),
                        _ => (at, vec![byte; (1 + index % 3) * PAGE], true),
                    };
                    expected[offset..offset + bytes.len()].fill(byte);
                    requests.push(write(blob, offset, &bytes, sync));
                }
                for length in [13 * PAGE, PAGES * PAGE] {
                    let work = BlobRequest::Resize { length: length as u64 };
                    requests.push(Request::Blob { blob, work });
                }
                expected[13 * PAGE..].fill(0);
                assert!(desk.ask_all(requests).iter().all(is_done));
                assert_eq!(desk.read(blob, 0, 4 * PAGE, round % 2 == 0), &expected[..4 * PAGE]);
                assert!(desk.contents(blob) == expected, "{layout:?}, round {round}");
            }
            let mut desk = place.reopen(desk);
            let blob = desk.open("one", b"name").expect("opens");
            assert!(desk.contents(blob) == expected);
        }
    });
}

#[test]
fn what_the_page_cache_showed_before_is_not_shown_after() {
    everywhere(|place| {
        let place = place.another();
        let mut desk = place.open();
        let blob = settled(&mut desk);
        for byte in 10..60 {
            // So that its pages are there to be dropped.
            desk.contents(blob);
            assert!(desk.ask_all(crowd(blob, byte)).iter().all(is_done));
            assert!(desk.contents(blob) == pages(byte));
        }
    });
}

#[test]
fn a_crowd_that_was_answered_survives_a_power_cut() {
    on_sims(|sim, place, mut desk, blob| {
        assert!(desk.ask_all(crowd(blob, 9)).iter().all(is_done));
        let after = Place::Sim(sim.image().boot_with([], 1));
        let mut desk = after.open();
        let blob = desk.open("one", b"name").expect("opens");
        assert!(desk.contents(blob) == pages(9), "{place:?}");
    });
}

#[test]
fn a_write_past_the_cache_that_is_refused_goes_through_it() {
    for errno in [Errno::INVAL, Errno::NOTSUP] {
        on_sims(|sim, _, mut desk, blob| {
            // Not the first: that may go by itself, before the crowd is seen.
            let third = 3 * PAGE as u64..4 * PAGE as u64;
            sim.fail(Fault::new(Call::Write).errno(errno.raw_os_error()).bytes(third));
            // Each page twice, and in this order.
            let requests = crowd(blob, 8).chain(crowd(blob, 9));
            let results = desk.ask_all(requests);
            assert!(results.iter().all(is_done), "{results:?}");
            assert!(desk.contents(blob) == pages(9));
            let after = Place::Sim(sim.image().boot_with([], 1));
            let mut desk = after.open();
            let blob = desk.open("one", b"name").expect("opens");
            assert!(desk.contents(blob) == pages(9));
        });
    }
}

#[test]
fn a_write_past_the_cache_that_fails_is_its_own_failure() {
    on_sims(|sim, _, mut desk, blob| {
        let page = PAGE as u64..2 * PAGE as u64;
        sim.fail(Fault::new(Call::Write).bytes(page.start + 4096..page.end + 4096));
        let results = desk.ask_all(crowd(blob, 9));
        for (index, result) in results.into_iter().enumerate() {
            if index == 1 {
                let error = result.expect_err("it fails");
                assert_eq!((error.code, error.offset), (Code::BlobWriteFailed, Some(page.start)));
            } else {
                assert!(is_done(&result), "{index}");
            }
        }
        // The blob goes on, and writing again is safe.
        assert!(desk.ask_all(crowd(blob, 10)).iter().all(is_done));
        assert!(desk.contents(blob) == pages(10));
    });
}

#[test]
fn a_flush_that_fails_ends_a_crowd() {
    on_sims(|sim, _, mut desk, blob| {
        sim.fail(Fault::new(Call::Sync));
        for result in desk.ask_all(crowd(blob, 9)) {
            let code = result.expect_err("nothing is durable").code;
            assert!(matches!(code, Code::BlobSyncFailed | Code::BlobPoisoned), "{code:?}");
        }
        for result in desk.ask_all(crowd(blob, 10)) {
            assert_eq!(result.expect_err("it is poisoned").code, Code::BlobPoisoned);
        }
    });
}

#[test]
fn a_short_write_past_the_cache_is_finished() {
    on_sims(|sim, _, mut desk, blob| {
        sim.fail(Fault::short_write().times(5));
        assert!(desk.ask_all(crowd(blob, 9)).iter().all(is_done));
        assert!(desk.contents(blob) == pages(9));
    });
}
