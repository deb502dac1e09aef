//! The Python module `csi_core._allocator`: a thin binding, no logic of its own.
//!
//! What each function does is documented where Python's users look: in `csi_core/_allocator.pyi`.

mod file_map;
mod os_error;
mod packed;
mod pool;
mod pool_error;

#[pyo3::pymodule(gil_used = false)]
mod _allocator {
    use csi_core_allocator::file_map::flags;
    use pyo3::prelude::*;
    use pyo3::types::PyTuple;

    #[pymodule_export]
    const EXTENT_LAST: u32 = flags::LAST;
    #[pymodule_export]
    const EXTENT_UNWRITTEN: u32 = flags::UNWRITTEN;
    #[pymodule_export]
    const EXTENT_SHARED: u32 = flags::SHARED;

    #[pymodule_export]
    const DEFAULT_EXTENT_BYTES: u64 = csi_core_allocator::pool::DEFAULT_EXTENT_BYTES;
    #[pymodule_export]
    const MIN_EXTENT_BYTES: u64 = csi_core_allocator::pool::MIN_EXTENT_BYTES;
    #[pymodule_export]
    const MAX_EXTENT_BYTES: u64 = csi_core_allocator::pool::MAX_EXTENT_BYTES;
    #[pymodule_export]
    const HELD_OWNED: u64 = 0;
    #[pymodule_export]
    const HELD_SHARED: u64 = 1;
    #[pymodule_export]
    const HELD_QUARANTINED: u64 = 2;

    #[pymodule_export]
    use crate::pool::ExtentPool;
    #[pymodule_export]
    use crate::pool_error::RunConflictError;

    #[pymodule_export]
    use crate::file_map::{
        allocated_bytes, clone_range, data_ranges, diff_extents, fiemap, merge_extents, shared_bytes,
    };

    /// What every conflict has, also one that names no runs.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let conflict = module.py().get_type::<RunConflictError>();
        conflict.setattr("runs", PyTuple::empty(module.py()))?;
        conflict.setattr("positions", PyTuple::empty(module.py()))
    }
}
