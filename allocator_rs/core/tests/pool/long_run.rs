//! Long sequences from fixed seeds: what a fuzzer would do, in bounded time.

use crate::model::{Step, Twins};

/// xorshift64*: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }

    /// Mostly short, seldom long.
    fn length(&mut self, longest: u64) -> u64 {
        let bound = 1 + self.below(longest);
        1 + self.below(bound)
    }

    fn step(&mut self, longest: u64) -> Step {
        let (at, length) = (self.below(1 << 40), self.length(longest));
        match self.below(100) {
            0..30 => {
                let alignment_log = if self.below(4) == 0 { self.below(6) as u32 } else { 0 };
                let room = if self.below(4) == 0 { self.below(longest) } else { 0 };
                Step::Allocate { length, alignment_log, room }
            }
            30..35 => {
                let lengths = std::array::from_fn(|_| self.length(longest));
                Step::Batch { lengths, alignment_log: 0 }
            }
            35..38 => Step::Scatter { length: 4 * length, max_runs: self.below(16) as usize },
            38..44 => Step::Extend { at, length, by: self.below(longest) },
            44..78 => Step::Free { at, length: 1 + length / 4 },
            78..84 => Step::Quarantine { at, length: 1 + length / 4 },
            84..92 => Step::Reclaim { at, length: 1 + length / 8 },
            92..99 => Step::Share { at, length },
            _ if self.below(8) == 0 => Step::Rebuild,
            _ => Step::Allocate { length: 1, alignment_log: 0, room: 0 },
        }
    }
}

fn run(seed: u64, segments: &[u64], longest: u64, steps: u32) {
    let mut random = Random(seed);
    let mut twins = Twins::new(segments);
    for count in 0..steps {
        twins.step(random.step(longest));
        if count % 64 == 0 {
            twins.compare();
        }
    }
    twins.compare();
}

#[test]
fn short_runs_in_one_segment() {
    run(1, &[3000], 12, 30_000);
}

#[test]
fn long_runs_that_share_bins() {
    run(2, &[20_000], 1500, 20_000);
}

#[test]
fn small_segments() {
    run(3, &[1, 63, 64, 65, 700, 2], 40, 30_000);
}
