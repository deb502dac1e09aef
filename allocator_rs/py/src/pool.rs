//! The class `ExtentPool`: a lock around the allocator, and words instead of structures.

use std::sync::{Mutex, MutexGuard, PoisonError};

use csi_core_allocator::pool::{DEFAULT_EXTENT_BYTES, Held, Hold, Pool, PoolError, Request, Run};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;
use pyo3::types::{PyBytes, PyDict};

use crate::packed::{pack, pack_runs, unpack};
use crate::pool_error::{entry_error, held_error, pool_error};

const HOLDS: [Hold; 3] = [Hold::Owned, Hold::Shared, Hold::Quarantined];

// `help()` and the stub show defaults only where they are literals.
const _: () = assert!(DEFAULT_EXTENT_BYTES == 1_048_576);

/// A run as Python has it: segment, start, length.
type Words = (u32, u64, u64);

#[pyclass(frozen, module = "csi_core._allocator")]
pub struct ExtentPool {
    pool: Mutex<Pool>,
}

/// Single operations keep the GIL: they are over before it could be handed on.
#[pymethods]
#[expect(clippy::needless_pass_by_value, reason = "arguments come from Python as values")]
impl ExtentPool {
    #[new]
    #[pyo3(signature = (segments, *, extent_bytes = 1_048_576))]
    fn new(segments: Vec<u64>, extent_bytes: u64) -> PyResult<Self> {
        let mut pool = Pool::new(extent_bytes).map_err(pool_error)?;
        for extents in segments {
            pool.add_segment(extents).map_err(pool_error)?;
        }
        Ok(Self { pool: Mutex::new(pool) })
    }

    #[staticmethod]
    #[pyo3(signature = (segments, held, *, extent_bytes = 1_048_576))]
    fn rebuild(py: Python<'_>, segments: Vec<u64>, held: &[u8], extent_bytes: u64) -> PyResult<Self> {
        let pool = py.detach(|| {
            let held = unpack_held(held)?;
            Pool::rebuild(extent_bytes, &segments, &held).map_err(|error| held_error(&held, error))
        })?;
        Ok(Self { pool: Mutex::new(pool) })
    }

    #[getter]
    fn extent_bytes(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.lock(py)?.extent_bytes())
    }

    #[getter]
    fn extents(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.lock(py)?.extents())
    }

    #[getter]
    fn free_extents(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.lock(py)?.free_extents())
    }

    #[getter]
    fn longest_free_run(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.lock(py)?.longest_free_run())
    }

    fn segment_extents(&self, py: Python<'_>, segment: u32) -> PyResult<u64> {
        self.locked(py, |pool| pool.segment_extents(segment).ok_or(PoolError::NoSuchSegment { segment }))
    }

    fn add_segment(&self, py: Python<'_>, extents: u64) -> PyResult<u32> {
        self.locked(py, |pool| pool.add_segment(extents))
    }

    fn grow_segment(&self, py: Python<'_>, segment: u32, extents: u64) -> PyResult<()> {
        self.locked(py, |pool| pool.grow_segment(segment, extents))
    }

    #[pyo3(signature = (length, *, alignment = 1, room = 0))]
    fn allocate(&self, py: Python<'_>, length: u64, alignment: u64, room: u64) -> PyResult<Option<Words>> {
        let request = Request::new(length).and_then(|request| request.aligned_to(alignment));
        let request = request.map_err(pool_error)?.with_room(room);
        Ok(self.lock(py)?.allocate(request).map(words))
    }

    #[pyo3(signature = (lengths, *, alignment = 1))]
    fn allocate_batch<'py>(
        &self,
        py: Python<'py>,
        lengths: &[u8],
        alignment: u64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let runs = py.detach(|| {
            let lengths: Vec<u64> = unpack(lengths)?.map(|[length]| length).collect();
            let runs = self.lock_detached()?.allocate_batch(&lengths, alignment);
            runs.map_err(pool_error)
        })?;
        runs.map(|runs| pack_runs(py, &runs)).transpose()
    }

    fn allocate_scattered<'py>(
        &self,
        py: Python<'py>,
        length: u64,
        max_runs: usize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let runs = py.detach(|| {
            let runs = self.lock_detached()?.allocate_scattered(length, max_runs);
            runs.map_err(pool_error)
        })?;
        runs.map(|runs| pack_runs(py, &runs)).transpose()
    }

    fn extend(&self, py: Python<'_>, segment: u32, start: u64, length: u64, by: u64) -> PyResult<bool> {
        let extended = self.locked(py, |pool| pool.extend(Run { segment, start, length }, by))?;
        Ok(extended.is_some())
    }

    fn room_behind(&self, py: Python<'_>, segment: u32, start: u64, length: u64) -> PyResult<u64> {
        self.locked(py, |pool| pool.room_behind(Run { segment, start, length }))
    }

    fn free(&self, py: Python<'_>, segment: u32, start: u64, length: u64) -> PyResult<u64> {
        self.locked(py, |pool| pool.free(Run { segment, start, length }))
    }

    fn free_batch(&self, py: Python<'_>, runs: &[u8]) -> PyResult<u64> {
        py.detach(|| {
            // Twice over the words, the first time for errors: a list of runs would cost as much as freeing them.
            unpack(runs)?.try_for_each(|words| run(words).map(drop))?;
            let listed = unpack(runs)?.filter_map(|words| run(words).ok());
            let freed = self.lock_detached()?.free_batch(listed);
            freed.or_else(|(position, error)| {
                let refused = run(unpack(runs)?.nth(position).unwrap_or_default())?;
                Err(entry_error(position, refused, error))
            })
        })
    }

    fn quarantine<'py>(
        &self,
        py: Python<'py>,
        segment: u32,
        start: u64,
        length: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let runs = self.locked(py, |pool| pool.quarantine(Run { segment, start, length }))?;
        pack_runs(py, &runs)
    }

    fn reclaim(&self, py: Python<'_>, segment: u32, start: u64, length: u64) -> PyResult<()> {
        self.locked(py, |pool| pool.reclaim(Run { segment, start, length }))
    }

    fn share(&self, py: Python<'_>, segment: u32, start: u64, length: u64) -> PyResult<()> {
        self.locked(py, |pool| pool.share(Run { segment, start, length }))
    }

    fn free_runs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let runs: Vec<Run> = py.detach(|| PyResult::Ok(self.lock_detached()?.free_runs().collect()))?;
        pack_runs(py, &runs)
    }

    fn quarantined_runs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let runs: Vec<Run> =
            py.detach(|| PyResult::Ok(self.lock_detached()?.quarantined_runs().collect()))?;
        pack_runs(py, &runs)
    }

    fn shared_runs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let runs: Vec<(Run, u64)> =
            py.detach(|| PyResult::Ok(self.lock_detached()?.shared_runs().collect()))?;
        pack(py, &runs, |&(run, owners)| [run.segment.into(), run.start, run.length, owners])
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (statistics, histogram) = py.detach(|| {
            let pool = self.lock_detached()?;
            PyResult::Ok((pool.statistics(), pool.free_run_histogram()))
        })?;
        let figures = PyDict::new(py);
        figures.set_item("extents", statistics.extents)?;
        figures.set_item("free_extents", statistics.free_extents)?;
        figures.set_item("quarantined_extents", statistics.quarantined_extents)?;
        figures.set_item("shared_extents", statistics.shared_extents)?;
        figures.set_item("free_runs", statistics.free_runs)?;
        figures.set_item("quarantined_runs", statistics.quarantined_runs)?;
        figures.set_item("longest_free_run", statistics.longest_free_run)?;
        figures.set_item("fragmentation", statistics.fragmentation)?;
        figures.set_item("free_run_histogram", histogram)?;
        figures.set_item("memory_bytes", statistics.memory_bytes)?;
        figures.set_item("fixed_memory_bytes", statistics.fixed_memory_bytes)?;
        Ok(figures)
    }

    fn check(&self, py: Python<'_>) -> PyResult<Option<String>> {
        py.detach(|| Ok(self.lock_detached()?.check().err()))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let pool = self.lock(py)?;
        Ok(format!(
            "<ExtentPool: {} of {} extents of {} bytes free>",
            pool.free_extents(),
            pool.extents(),
            pool.extent_bytes()
        ))
    }
}

/// No lock is held while a Python object is made, an exception neither: that may run the garbage collector, and
/// so a finalizer that calls this very pool.
impl ExtentPool {
    /// Does something with the pool, and only then makes an exception of its error.
    #[inline]
    fn locked<T>(
        &self,
        py: Python<'_>,
        operation: impl FnOnce(&mut Pool) -> Result<T, PoolError>,
    ) -> PyResult<T> {
        let done = operation(&mut *self.lock(py)?);
        done.map_err(pool_error)
    }

    /// Waits without the GIL where another thread has the lock for longer.
    fn lock(&self, py: Python<'_>) -> PyResult<MutexGuard<'_, Pool>> {
        self.pool.lock_py_attached(py).map_err(in_doubt)
    }

    fn lock_detached(&self) -> PyResult<MutexGuard<'_, Pool>> {
        self.pool.lock().map_err(in_doubt)
    }
}

/// After a panic in the middle of a change nothing that the pool says can be trusted.
fn in_doubt<T>(_: PoisonError<T>) -> PyErr {
    PyRuntimeError::new_err("an operation on this pool has panicked; rebuild the pool from its owners' runs")
}

fn words(run: Run) -> Words {
    (run.segment, run.start, run.length)
}

fn run([segment, start, length]: [u64; 3]) -> PyResult<Run> {
    let segment = u32::try_from(segment)
        .map_err(|_| PyValueError::new_err(format!("{segment} is not the number of a segment")))?;
    Ok(Run { segment, start, length })
}

fn unpack_held(buffer: &[u8]) -> PyResult<Vec<Held>> {
    let held = unpack(buffer)?.map(|[segment, start, length, hold]| {
        let hold = usize::try_from(hold).ok().and_then(|hold| HOLDS.get(hold)).ok_or_else(|| {
            PyValueError::new_err(format!("{hold} is not HELD_OWNED, HELD_SHARED or HELD_QUARANTINED"))
        })?;
        Ok(Held { run: run([segment, start, length])?, hold: *hold })
    });
    held.collect()
}
