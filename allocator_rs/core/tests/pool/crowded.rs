//! Nearly all free runs close together and a few far behind: one chunk of the index then has very many.

use std::collections::BTreeSet;

use csi_core_allocator::pool::{Held, Hold, Pool, Request, Run};

const FRONT: u64 = 40_000;
const SEGMENT: u64 = 1 << 36;

fn run(start: u64, length: u64) -> Run {
    Run { segment: 0, start, length }
}

/// Every fourth extent in front is free, and two extents far behind.
fn crowded() -> Pool {
    let free = (0..FRONT).step_by(4).chain([SEGMENT - 3, SEGMENT - 1]);
    let mut reached = 0;
    let mut held = Vec::new();
    for start in free {
        if start > reached {
            held.push(Held { run: run(reached, start - reached), hold: Hold::Owned });
        }
        reached = start + 1;
    }
    Pool::rebuild(1 << 16, &[SEGMENT], &held).unwrap()
}

/// Numbers below `bound` in no order.
fn numbers(bound: u64) -> impl Iterator<Item = u64> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    })
}

#[test]
fn a_crowd_of_free_runs_is_kept_as_any_others() {
    let mut pool = crowded();
    let mut free: BTreeSet<u64> = (0..FRONT).step_by(4).collect();
    for (count, extent) in numbers(FRONT).take(60_000).enumerate() {
        match count % 4 {
            0 | 1 => assert_eq!(pool.free(run(extent, 1)).is_ok(), free.insert(extent), "{extent}"),
            2 => {
                let taken = pool.extend(run(extent, 1), 1).ok().flatten().is_some();
                let used = !free.contains(&extent);
                assert_eq!(taken, used && free.remove(&(extent + 1)), "{extent}");
            }
            _ => {
                let taken = pool.allocate(Request::new(1).unwrap()).unwrap();
                assert!(free.remove(&taken.start) || taken.start >= FRONT);
            }
        }
        if count % 10_000 == 0 {
            pool.check().unwrap();
        }
    }
    pool.check().unwrap();
    let found = pool.free_runs().flat_map(|run| run.start..run.end()).filter(|&extent| extent < FRONT);
    assert!(found.eq(free));
}

/// All these calls together would take an hour if each looked at every run.
#[test]
fn of_many_equal_runs_few_are_looked_at() {
    let (teeth, calls) = (100_000, 100_000);
    let held = (0..teeth).map(|number| Held { run: run(2 * number, 1), hold: Hold::Owned });
    let mut pool = Pool::rebuild(1 << 16, &[2 * teeth], &held.collect::<Vec<_>>()).unwrap();
    for _ in 0..calls {
        assert_eq!(pool.longest_free_run(), 1);
        assert_eq!(pool.allocate_scattered(5, 4), Ok(None));
        let scattered = pool.allocate_scattered(4, 4).unwrap().unwrap();
        assert_eq!(pool.free_batch(scattered), Ok(4));
        let roomy = pool.allocate(Request::new(1).unwrap().with_room(100)).unwrap();
        assert_eq!(pool.free(roomy), Ok(1));
    }
    assert_eq!(pool.free_extents(), teeth);
}
