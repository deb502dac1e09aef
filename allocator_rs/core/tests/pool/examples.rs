//! What a reader may want to see spelled out: limits, errors that name runs, placement.

use csi_core_allocator::pool::{Held, Hold, MAX_SEGMENT_EXTENTS, Pool, PoolError, Request, Run};

const MIB: u64 = 1 << 20;

fn pool(segments: &[u64]) -> Pool {
    let mut pool = Pool::new(MIB).unwrap();
    for &extents in segments {
        pool.add_segment(extents).unwrap();
    }
    pool
}

fn length(extents: u64) -> Request {
    Request::new(extents).unwrap()
}

fn run(segment: u32, start: u64, length: u64) -> Run {
    Run { segment, start, length }
}

#[test]
fn full_is_none() {
    let mut pool = pool(&[10, 10]);
    assert_eq!(pool.allocate(length(11)), None, "no run crosses segments");
    let mut taken = [pool.allocate(length(10)).unwrap(), pool.allocate(length(10)).unwrap()];
    taken.sort();
    assert_eq!(taken, [run(0, 0, 10), run(1, 0, 10)]);
    assert_eq!(pool.allocate(length(1)), None);
}

#[test]
fn the_tightest_of_the_free_runs_is_taken() {
    let mut pool = pool(&[1000]);
    assert!(pool.allocate(length(1000)).is_some());
    for (start, extents) in [(0, 50), (100, 20), (200, 30)] {
        pool.free(run(0, start, extents)).unwrap();
    }
    assert_eq!(pool.allocate(length(18)), Some(run(0, 100, 18)));
    assert_eq!(pool.allocate(length(30)), Some(run(0, 200, 30)));
}

#[test]
fn a_run_that_fits_is_found_however_many_do_not() {
    let mut pool = pool(&[5_000_000]);
    assert!(pool.allocate(length(5_000_000)).is_some());
    // One bin holds the lengths 139,776 to 140,287: twenty that are too short, the right one below them.
    pool.free(run(0, 0, 140_200)).unwrap();
    for count in 1..=20 {
        pool.free(run(0, count * 200_000, 139_900)).unwrap();
    }
    assert_eq!(pool.allocate(length(140_201)), None);
    assert_eq!(pool.allocate(length(140_200)), Some(run(0, 0, 140_200)));
    assert_eq!(pool.allocate(length(140_200)), None);
    pool.free(run(0, 4_500_000, 150_000)).unwrap();
    assert_eq!(pool.allocate(length(140_000)), Some(run(0, 4_500_000, 140_000)), "the next bin has one");
    pool.check().unwrap();
}

#[test]
fn many_runs_in_a_corner_of_a_large_segment_are_found() {
    let mut pool = pool(&[1 << 30]);
    assert!(pool.allocate(length(1 << 30)).is_some());
    let teeth = [0, 1 << 20, (1 << 30) - 8192].map(|corner| (corner..corner + 8192).step_by(2));
    for start in teeth.into_iter().flatten() {
        pool.free(run(0, start, 1)).unwrap();
        assert!(pool.free(run(0, start, 1)).is_err());
    }
    pool.check().unwrap();
    assert_eq!(pool.statistics().free_runs, 3 * 4096);
    for start in (1..8191).step_by(2) {
        pool.free(run(0, start, 1)).unwrap();
    }
    pool.check().unwrap();
    assert_eq!(pool.free_runs().next(), Some(run(0, 0, 8191)));
}

#[test]
fn a_growing_volume_gets_room_on_both_sides() {
    let mut pool = pool(&[100_000]);
    let growing = length(256).with_room(10_000);
    let first = pool.allocate(growing).unwrap();
    let second = pool.allocate(growing).unwrap();
    let third = pool.allocate(growing).unwrap();
    assert_eq!(first.start, 0);
    for run in [first, second, third] {
        assert!(pool.room_behind(run).unwrap() >= 10_000, "{run}");
    }
}

#[test]
fn growing_volumes_share_what_is_left_when_room_is_scarce() {
    let mut pool = pool(&[1000]);
    let growing = length(10).with_room(10_000);
    let runs: Vec<Run> = (0..8).map(|_| pool.allocate(growing).unwrap()).collect();
    let least = runs.iter().map(|&run| pool.room_behind(run).unwrap()).min();
    assert!(least.unwrap() >= 50, "the least room is {least:?}");
}

#[test]
fn what_is_not_in_use_cannot_be_freed() {
    let mut pool = pool(&[100]);
    let held = pool.allocate(length(40)).unwrap();
    pool.free(run(0, 10, 10)).unwrap();
    let error = pool.free(held).unwrap_err();
    assert_eq!(error, PoolError::Free { run: held, free: run(0, 10, 10) });
    assert_eq!(
        error.to_string(),
        "extents 0..40 of segment 0 should be in use, but extents 10..20 of segment 0 are free"
    );
    assert!(matches!(pool.free(run(0, 60, 1)), Err(PoolError::Free { .. })), "inside of a free run");
    assert_eq!(pool.quarantine(run(0, 0, 10)).unwrap(), [run(0, 0, 10)]);
    assert!(matches!(pool.free(run(0, 5, 1)), Err(PoolError::Quarantined { .. })));
    assert_eq!(pool.reclaim(run(0, 5, 10)), Err(PoolError::NotQuarantined { run: run(0, 5, 10) }));
    pool.reclaim(run(0, 0, 10)).unwrap();
    assert_eq!(pool.free_runs().collect::<Vec<_>>(), [run(0, 0, 20), run(0, 40, 60)]);
}

#[test]
fn a_batch_that_is_freed_stops_at_the_first_error() {
    let mut pool = pool(&[100]);
    assert!(pool.allocate(length(100)).is_some());
    let runs = [run(0, 0, 10), run(0, 20, 10), run(0, 25, 10), run(0, 50, 10)];
    let (position, error) = pool.free_batch(runs).unwrap_err();
    assert_eq!((position, error), (2, PoolError::Free { run: runs[2], free: runs[1] }));
    assert_eq!(pool.free_extents(), 20);
}

#[test]
fn overlaps_are_named_by_position_and_run() {
    let owned = |run| Held { run, hold: Hold::Owned };
    let held = [owned(run(1, 50, 10)), owned(run(0, 0, 5)), owned(run(1, 55, 10))];
    let error = Pool::rebuild(MIB, &[100, 100], &held).unwrap_err();
    assert_eq!(error, PoolError::Overlap { first: (0, held[0].run), second: (2, held[2].run) });
    assert_eq!(
        error.to_string(),
        "entries 0 and 2 of the list overlap: extents 50..60 of segment 1 and extents 55..65 of segment 1"
    );
    let twice = [owned(run(0, 1, 1)), owned(run(0, 3, 5)), owned(run(0, 9, 1)), owned(run(0, 3, 5))];
    let error = Pool::rebuild(MIB, &[100], &twice).unwrap_err();
    assert_eq!(error, PoolError::Overlap { first: (1, twice[1].run), second: (3, twice[3].run) });
    let mixed = [owned(run(0, 0, 50)), Held { run: run(0, 10, 5), hold: Hold::Shared }];
    assert!(matches!(Pool::rebuild(MIB, &[100], &mixed), Err(PoolError::Overlap { .. })));
    let behind = [owned(run(0, 90, 11))];
    assert!(matches!(Pool::rebuild(MIB, &[100], &behind), Err(PoolError::OutOfBounds { .. })));
    assert!(matches!(Pool::rebuild(MIB, &[], &behind), Err(PoolError::NoSuchSegment { segment: 0 })));
}

#[test]
fn what_makes_no_sense_is_refused() {
    assert_eq!(Pool::new(3 * MIB).unwrap_err(), PoolError::ExtentSize { bytes: 3 * MIB });
    assert_eq!(Pool::new(32 << 10).unwrap_err(), PoolError::ExtentSize { bytes: 32 << 10 });
    assert_eq!(Request::new(0).unwrap_err(), PoolError::Empty);
    assert_eq!(pool(&[9]).allocate_batch(&[1, 0], 1), Err(PoolError::Empty));
    assert_eq!(pool(&[9]).allocate_batch(&[1], 5), Err(PoolError::Alignment { extents: 5 }));
    assert_eq!(length(1).aligned_to(3).unwrap_err(), PoolError::Alignment { extents: 3 });
    let mut pool = pool(&[100]);
    assert_eq!(pool.add_segment(0), Err(PoolError::SegmentSize { extents: 0 }));
    assert_eq!(pool.add_segment((4 << 30) - 99), Err(PoolError::PoolTooLarge));
    assert_eq!(pool.grow_segment(0, 99), Err(PoolError::SegmentShrinks { segment: 0, extents: 100 }));
    assert_eq!(pool.grow_segment(1, 200), Err(PoolError::NoSuchSegment { segment: 1 }));
    assert_eq!(
        pool.free(run(0, 90, u64::MAX)),
        Err(PoolError::OutOfBounds { run: run(0, 90, u64::MAX), segment_extents: 100 })
    );
    assert_eq!(pool.free(run(0, 90, 0)), Err(PoolError::Empty));
}

#[test]
fn the_largest_pool_works_at_both_ends() {
    let mut pool = Pool::new(64 << 10).unwrap();
    pool.add_segment(MAX_SEGMENT_EXTENTS).unwrap();
    let all = pool.allocate(length(MAX_SEGMENT_EXTENTS)).unwrap();
    assert_eq!(pool.allocate(length(1)), None);
    let (first, last) = (run(0, 0, 1), run(0, MAX_SEGMENT_EXTENTS - 1, 1));
    pool.free(first).unwrap();
    pool.free(last).unwrap();
    pool.check().unwrap();
    assert_eq!(pool.free_runs().collect::<Vec<_>>(), [first, last]);
    assert!(pool.free(all).is_err());
    pool.free(run(0, 1, MAX_SEGMENT_EXTENTS - 2)).unwrap();
    assert_eq!(pool.statistics().longest_free_run, MAX_SEGMENT_EXTENTS);
}

#[test]
fn fragmentation_is_cephs() {
    let mut pool = pool(&[100]);
    assert!(pool.statistics().fragmentation.abs() < 1e-12);
    assert!(pool.allocate(length(100)).is_some());
    for start in (0..100).step_by(2) {
        pool.free(run(0, start, 1)).unwrap();
    }
    assert!((pool.statistics().fragmentation - 1.0).abs() < 1e-12);
    assert_eq!(pool.free_run_histogram(), [50]);
}
