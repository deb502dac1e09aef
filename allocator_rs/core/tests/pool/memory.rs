//! Memory follows the free runs that there are, not those that there once were.

use csi_core_allocator::pool::{Pool, Request, Run};

/// Bytes for each free run that a pool may hold on to while runs become fewer, and for all of them.
const RUN_BYTES: u64 = 200;
const ALL_BYTES: u64 = 16 << 10;

fn run(segment: u32, start: u64) -> Run {
    Run { segment, start, length: 1 }
}

fn reclaim(pool: &mut Pool, run: Run) {
    pool.quarantine(run).unwrap();
    pool.reclaim(run).unwrap();
}

fn check_memory(pool: &Pool) {
    let found = pool.statistics();
    let runs = found.free_runs;
    assert!(
        found.memory_bytes <= RUN_BYTES * runs + ALL_BYTES,
        "{} bytes for {runs} runs",
        found.memory_bytes
    );
    pool.check().unwrap();
}

/// The numbers below `count`, each once, in no order.
fn shuffled(count: u64) -> impl DoubleEndedIterator<Item = u64> {
    (0..count).map(move |number| number * 1_000_003 % count)
}

/// Segments of which every second extent is free.
fn comb(segments: u32, teeth: u64) -> Pool {
    let mut pool = Pool::new(1 << 20).unwrap();
    for segment in 0..segments {
        pool.add_segment(2 * teeth).unwrap();
        pool.allocate(Request::new(2 * teeth).unwrap()).unwrap();
        for number in shuffled(teeth) {
            pool.free(run(segment, 2 * number)).unwrap();
        }
    }
    pool
}

#[test]
fn what_a_comb_took_is_given_back_while_it_becomes_one_run() {
    for teeth in [100, 5_000, 150_000] {
        let mut pool = comb(1, teeth);
        let most = pool.statistics().memory_bytes;
        for (count, number) in (0_u64..).zip(shuffled(teeth)) {
            reclaim(&mut pool, run(0, 2 * number + 1));
            if count % (teeth / 10) == 0 {
                check_memory(&pool);
            }
        }
        check_memory(&pool);
        assert!(teeth < 1000 || pool.statistics().memory_bytes < most / 20, "of {most}");
        assert_eq!(
            pool.allocate(Request::new(2 * teeth).unwrap()),
            Some(Run { length: 2 * teeth, ..run(0, 0) })
        );
    }
}

#[test]
fn a_segment_that_has_few_runs_left_keeps_none_of_the_others() {
    let (segments, teeth) = (5, 20_000);
    let mut pool = comb(segments, teeth);
    for segment in 0..segments {
        for number in shuffled(teeth) {
            reclaim(&mut pool, run(segment, 2 * number + 1));
        }
        pool.check().unwrap();
        let whole: Vec<Run> = pool.free_runs().filter(|run| run.length > 1).collect();
        assert_eq!(whole.len() as u32, segment + 1);
    }
    check_memory(&pool);
}

#[test]
fn runs_that_are_numbered_anew_are_taken_in_the_same_order() {
    let teeth = 30_000;
    let mut pool = comb(1, teeth);
    for (count, number) in (1..).zip(shuffled(teeth).rev()) {
        assert_eq!(pool.allocate(Request::new(1).unwrap()), Some(run(0, 2 * number)), "the newest");
        if count % 1000 == 0 {
            reclaim(&mut pool, run(0, 2 * number));
            assert_eq!(pool.allocate(Request::new(1).unwrap()), Some(run(0, 2 * number)));
            check_memory(&pool);
        }
    }
}

/// A crowd of free runs that moves on through a large segment leaves nothing behind where it was.
#[test]
fn a_crowd_that_moves_on_takes_its_landmarks_along() {
    let (crowd, far, places) = (200, 50, 1_500);
    let mut pool = Pool::new(1 << 16).unwrap();
    pool.add_segment(1 << 36).unwrap();
    pool.allocate(Request::new(1 << 36).unwrap()).unwrap();
    for number in 0..far {
        pool.free(run(0, (1 << 36) - 2 * (far - number))).unwrap();
    }
    for place in 0..places {
        let teeth = (0..crowd).map(|number| 2 * (place * crowd + number) + 1);
        for tooth in teeth.clone() {
            pool.free(run(0, tooth)).unwrap();
        }
        assert_eq!(pool.statistics().free_runs, crowd + far);
        for tooth in teeth {
            assert!(pool.extend(run(0, tooth - 1), 1).unwrap().is_some());
        }
    }
    pool.check().unwrap();
    let found = pool.statistics().memory_bytes;
    assert!(found <= RUN_BYTES * (crowd + far) + ALL_BYTES, "{found} bytes for {far} runs");
}
