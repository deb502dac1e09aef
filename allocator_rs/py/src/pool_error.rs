//! [`PoolError`] as Python exceptions that carry the runs they name.

use csi_core_allocator::pool::{PoolError as CoreError, Run};
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

/// The same for one entry of a list.
pub fn batch_error(position: usize, error: CoreError) -> PyErr {
    let refused = pool_error(error);
    Python::attach(|py| match refused.value(py).setattr("positions", (position,)) {
        Ok(()) => refused,
        Err(_) => PyValueError::new_err(format!("entry {position} of the list: {error}")),
    })
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
