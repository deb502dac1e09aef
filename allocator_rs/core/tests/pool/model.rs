//! The model: an array with one cell an extent, and a driver that does everything twice.

use csi_core_allocator::pool::{Held, Hold, Pool, Request, Run};

pub const EXTENT_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    Free,
    Owned(u64),
    Quarantined,
}

/// One call, its numbers taken modulo whatever makes them nearly valid.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Allocate { length: u64, alignment_log: u32, room: u64 },
    Batch { lengths: [u64; 4], alignment_log: u32 },
    Scatter { length: u64, max_runs: usize },
    Extend { at: u64, length: u64, by: u64 },
    Free { at: u64, length: u64 },
    Quarantine { at: u64, length: u64 },
    Reclaim { at: u64, length: u64 },
    Share { at: u64, length: u64 },
    GrowSegment { segment: u32, by: u64 },
    Rebuild,
}

/// A pool and its model.
pub struct Twins {
    pub pool: Pool,
    pub cells: Vec<Vec<Cell>>,
}

impl Twins {
    pub fn new(segments: &[u64]) -> Self {
        let mut pool = Pool::new(EXTENT_BYTES).unwrap();
        for &extents in segments {
            pool.add_segment(extents).unwrap();
        }
        Self { pool, cells: segments.iter().map(|&extents| vec![Cell::Free; extents as usize]).collect() }
    }

    /// Does one step on both and panics where they disagree.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Allocate { length, alignment_log, room } => self.allocate(length, 1 << alignment_log, room),
            Step::Batch { lengths, alignment_log } => self.batch(lengths, 1 << alignment_log),
            Step::Scatter { length, max_runs } => self.scatter(length, max_runs),
            Step::Extend { at, length, by } => self.extend(self.run(at, length), by),
            Step::Free { at, length } => self.free(self.run(at, length)),
            Step::Quarantine { at, length } => self.quarantine(self.run(at, length)),
            Step::Reclaim { at, length } => self.reclaim(self.run(at, length)),
            Step::Share { at, length } => self.share(self.run(at, length)),
            Step::GrowSegment { segment, by } => self.grow(segment, by),
            Step::Rebuild => self.rebuild(),
        }
    }

    /// Compares the whole state.
    pub fn compare(&self) {
        self.pool.check().unwrap();
        let free = self.runs(|cell| cell == Cell::Free);
        assert_eq!(self.pool.free_runs().collect::<Vec<_>>(), free);
        assert_eq!(
            self.pool.quarantined_runs().collect::<Vec<_>>(),
            self.runs(|cell| cell == Cell::Quarantined)
        );
        let shared: Vec<(Run, u64)> = self.pool.shared_runs().collect();
        assert_eq!(shared, self.shared_runs());
        let statistics = self.pool.statistics();
        let extents = |runs: &[Run]| runs.iter().map(|run| run.length).sum::<u64>();
        assert_eq!(statistics.free_extents, extents(&free));
        assert_eq!(statistics.free_runs, free.len() as u64);
        assert_eq!(statistics.longest_free_run, free.iter().map(|run| run.length).max().unwrap_or(0));
        assert_eq!(statistics.extents, self.cells.iter().map(|cells| cells.len() as u64).sum::<u64>());
        assert_eq!(statistics.shared_extents, shared.iter().map(|(run, _)| run.length).sum::<u64>());
        let mut histogram = vec![0; 37];
        for run in &free {
            histogram[run.length.ilog2() as usize] += 1;
        }
        let counted = self.pool.free_run_histogram();
        assert_eq!(counted, histogram[..counted.len()]);
        assert_eq!(counted.iter().sum::<u64>(), free.len() as u64);
    }

    fn allocate(&mut self, length: u64, alignment: u64, room: u64) {
        let request = Request::new(length).unwrap().aligned_to(alignment).unwrap().with_room(room);
        match self.pool.allocate(request) {
            Some(run) => {
                assert_eq!(run.length, length);
                assert_eq!(run.start % alignment, 0, "{run} not aligned to {alignment}");
                self.take(run);
            }
            None => assert!(!self.has_place(length, alignment), "None for {length} aligned to {alignment}"),
        }
    }

    fn batch(&mut self, lengths: [u64; 4], alignment: u64) {
        let before: Vec<Run> = self.pool.free_runs().collect();
        match self.pool.allocate_batch(&lengths, alignment).unwrap() {
            Some(runs) => {
                assert_eq!(runs.iter().map(|run| run.length).collect::<Vec<_>>(), lengths);
                for run in runs {
                    self.take(run);
                }
            }
            None => assert_eq!(self.pool.free_runs().collect::<Vec<_>>(), before, "all or nothing"),
        }
    }

    fn scatter(&mut self, length: u64, max_runs: usize) {
        let mut lengths: Vec<u64> =
            self.runs(|cell| cell == Cell::Free).iter().map(|run| run.length).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        let covered = |count: usize| lengths[..count].iter().sum::<u64>() >= length;
        let fewest = (1..=lengths.len()).find(|&count| covered(count));
        match self.pool.allocate_scattered(length, max_runs).unwrap() {
            Some(runs) => {
                assert_eq!(Some(runs.len()), fewest);
                assert!(runs.len() <= max_runs);
                assert_eq!(runs.iter().map(|run| run.length).sum::<u64>(), length);
                for run in runs {
                    self.take(run);
                }
            }
            None => assert!(fewest.is_none_or(|fewest| fewest > max_runs), "{fewest:?} runs would do"),
        }
    }

    fn extend(&mut self, run: Run, by: u64) {
        let in_use = self.all(run, |cell| matches!(cell, Cell::Owned(_)));
        let behind = &self.cells[run.segment as usize][run.end() as usize..];
        let room = behind.iter().take_while(|&&cell| cell == Cell::Free).count() as u64;
        assert_eq!(self.pool.room_behind(run).ok(), in_use.then_some(room));
        match self.pool.extend(run, by) {
            Ok(Some(longer)) => {
                assert!(in_use && by <= room);
                assert_eq!(longer, Run { length: run.length + by, ..run });
                self.take_if_any(Run { start: run.end(), length: by, ..run });
            }
            Ok(None) => assert!(in_use && by > room),
            Err(_) => assert!(!in_use),
        }
    }

    fn free(&mut self, run: Run) {
        let in_use = self.all(run, |cell| matches!(cell, Cell::Owned(_)));
        match self.pool.free(run) {
            Ok(freed) => {
                assert!(in_use, "{run} freed");
                assert_eq!(freed, self.disown(run, Cell::Free).iter().map(|run| run.length).sum::<u64>());
            }
            Err(error) => assert!(!in_use, "{error}"),
        }
    }

    fn quarantine(&mut self, run: Run) {
        let in_use = self.all(run, |cell| matches!(cell, Cell::Owned(_)));
        match self.pool.quarantine(run) {
            Ok(runs) => {
                assert!(in_use, "{run} quarantined");
                assert_eq!(runs, self.disown(run, Cell::Quarantined));
            }
            Err(error) => assert!(!in_use, "{error}"),
        }
    }

    fn reclaim(&mut self, run: Run) {
        let quarantined = self.all(run, |cell| cell == Cell::Quarantined);
        assert_eq!(self.pool.reclaim(run).is_ok(), quarantined);
        if quarantined {
            self.set(run, Cell::Free);
        }
    }

    fn share(&mut self, run: Run) {
        let in_use = self.all(run, |cell| matches!(cell, Cell::Owned(_)));
        assert_eq!(self.pool.share(run).is_ok(), in_use);
        if in_use {
            for cell in self.cells_of(run) {
                if let Cell::Owned(owners) = cell {
                    *owners += 1;
                }
            }
        }
    }

    fn grow(&mut self, segment: u32, by: u64) {
        let segment = segment % self.cells.len() as u32;
        let cells = &mut self.cells[segment as usize];
        cells.resize(cells.len() + by as usize, Cell::Free);
        self.pool.grow_segment(segment, cells.len() as u64).unwrap();
    }

    fn rebuild(&mut self) {
        let mut held: Vec<Held> = Vec::new();
        for run in self.runs(|cell| cell == Cell::Owned(1)) {
            held.push(Held { run, hold: Hold::Owned });
        }
        for run in self.runs(|cell| cell == Cell::Quarantined) {
            held.push(Held { run, hold: Hold::Quarantined });
        }
        let most = self.shared_runs().iter().map(|&(_, owners)| owners).max().unwrap_or(0);
        for owner in 1..=most {
            // As if the owners' runs lay one within the other.
            for run in self.shared_where(|owners| owners >= owner) {
                let half = run.length.div_ceil(1 + owner % 2);
                held.push(Held { run: Run { length: half, ..run }, hold: Hold::Shared });
                if half < run.length {
                    let rest = Run { start: run.start + half, length: run.length - half, ..run };
                    held.push(Held { run: rest, hold: Hold::Shared });
                }
            }
        }
        held.reverse();
        let segments: Vec<u64> = self.cells.iter().map(|cells| cells.len() as u64).collect();
        self.pool = Pool::rebuild(EXTENT_BYTES, &segments, &held).unwrap();
        self.compare();
    }

    /// Some run that lies within its segment, or nearly: `at` counts over all segments.
    fn run(&self, at: u64, length: u64) -> Run {
        let all: u64 = self.cells.iter().map(|cells| cells.len() as u64).sum();
        let mut start = at % all;
        for (segment, cells) in self.cells.iter().enumerate() {
            let extents = cells.len() as u64;
            if start < extents {
                return Run { segment: segment as u32, start, length: length.min(extents - start).max(1) };
            }
            start -= extents;
        }
        unreachable!("the start is below the sum")
    }

    fn runs(&self, kind: impl Fn(Cell) -> bool) -> Vec<Run> {
        self.chunks().into_iter().filter(|&(_, cell)| kind(cell)).map(|(run, _)| run).collect()
    }

    fn shared_runs(&self) -> Vec<(Run, u64)> {
        let shared = |(run, cell)| match cell {
            Cell::Owned(owners) if owners > 1 => Some((run, owners)),
            _ => None,
        };
        self.chunks().into_iter().filter_map(shared).collect()
    }

    /// Runs of extents, each of which has several owners, and so many that `enough` says yes.
    fn shared_where(&self, enough: impl Fn(u64) -> bool) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (run, owners) in self.shared_runs() {
            match runs.last_mut() {
                _ if !enough(owners) => {}
                Some(last) if last.segment == run.segment && last.end() == run.start => {
                    last.length += run.length;
                }
                _ => runs.push(run),
            }
        }
        runs
    }

    fn chunks(&self) -> Vec<(Run, Cell)> {
        let mut chunks = Vec::new();
        for (segment, cells) in self.cells.iter().enumerate() {
            let mut start = 0;
            for chunk in cells.chunk_by(|a, b| a == b) {
                chunks.push((Run { segment: segment as u32, start, length: chunk.len() as u64 }, chunk[0]));
                start += chunk.len() as u64;
            }
        }
        chunks
    }

    fn has_place(&self, length: u64, alignment: u64) -> bool {
        self.runs(|cell| cell == Cell::Free)
            .iter()
            .any(|run| run.start.next_multiple_of(alignment) + length <= run.end())
    }

    fn take_if_any(&mut self, run: Run) {
        if run.length > 0 {
            self.take(run);
        }
    }

    fn take(&mut self, run: Run) {
        assert!(self.all(run, |cell| cell == Cell::Free), "{run} given out twice");
        self.set(run, Cell::Owned(1));
    }

    /// Takes an owner away; answers with the runs that have none any more.
    fn disown(&mut self, run: Run, ownerless: Cell) -> Vec<Run> {
        let mut parts: Vec<Run> = Vec::new();
        for (index, cell) in self.cells_of(run).iter_mut().enumerate() {
            let Cell::Owned(owners) = *cell else { panic!("in use") };
            let start = run.start + index as u64;
            if owners > 1 {
                *cell = Cell::Owned(owners - 1);
                continue;
            }
            *cell = ownerless;
            match parts.last_mut() {
                Some(last) if last.end() == start => last.length += 1,
                _ => parts.push(Run { segment: run.segment, start, length: 1 }),
            }
        }
        parts
    }

    fn all(&self, run: Run, kind: impl Fn(Cell) -> bool) -> bool {
        self.cells[run.segment as usize][run.start as usize..run.end() as usize]
            .iter()
            .all(|&cell| kind(cell))
    }

    fn set(&mut self, run: Run, cell: Cell) {
        self.cells_of(run).fill(cell);
    }

    fn cells_of(&mut self, run: Run) -> &mut [Cell] {
        &mut self.cells[run.segment as usize][run.start as usize..run.end() as usize]
    }
}
