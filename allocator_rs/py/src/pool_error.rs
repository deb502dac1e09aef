//! [`PoolError`] as Python exceptions that carry the runs they name.

use csi_core_allocator::pool::{Held, PoolError as CoreError, Run};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

pyo3::create_exception!(
    csi_core._allocator,
    RunConflictError,
    PyValueError,
    "Runs that contradict each other or the pool."
);

/// `ValueError` for a request that makes no sense, `RunConflictError` for runs that contradict each other.
pub fn pool_error(error: CoreError) -> PyErr {
    let message = error.to_string();
    match error {
        CoreError::OutOfBounds { run, .. } | CoreError::NotQuarantined { run } => {
            conflict(message, &[run], &[])
        }
        CoreError::Free { run, free: other } | CoreError::Quarantined { run, quarantined: other } => {
            conflict(message, &[run, other], &[])
        }
        CoreError::Overlap { first, second } => conflict(message, &[first.1, second.1], &[first.0, second.0]),
        _ => PyValueError::new_err(message),
    }
}

/// `RunConflictError` for an entry of a list: whoever keeps a run that no pool can have has a corrupt list.
pub fn entry_error(position: usize, run: Run, error: CoreError) -> PyErr {
    let (named, other) = match error {
        CoreError::Free { free: other, .. } | CoreError::Quarantined { quarantined: other, .. } => {
            (error.to_string(), Some(other))
        }
        CoreError::OutOfBounds { .. } => (error.to_string(), None),
        _ => (format!("{run}: {error}"), None),
    };
    let runs: Vec<Run> = std::iter::once(run).chain(other).collect();
    conflict(format!("entry {position} of the list: {named}"), &runs, &[position])
}

/// The same for a list that a pool is to be rebuilt from.
pub fn held_error(held: &[Held], error: CoreError) -> PyErr {
    let refused = held.iter().position(|held| match error {
        CoreError::OutOfBounds { run, .. } => held.run == run,
        CoreError::NoSuchSegment { segment } => held.run.segment == segment,
        CoreError::Empty => held.run.length == 0,
        _ => false,
    });
    match refused {
        Some(position) => entry_error(position, held[position].run, error),
        None => pool_error(error),
    }
}

fn conflict(message: String, runs: &[Run], positions: &[usize]) -> PyErr {
    Python::attach(|py| {
        let error = RunConflictError::new_err(message);
        let runs = runs.iter().map(|run| (run.segment, run.start, run.length));
        let value = error.value(py);
        let attributes = PyTuple::new(py, runs)
            .and_then(|runs| value.setattr("runs", runs))
            .and_then(|()| PyTuple::new(py, positions))
            .and_then(|positions| value.setattr("positions", positions));
        attributes.err().unwrap_or(error)
    })
}
