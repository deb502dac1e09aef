//! The Python module `csi_core._allocator`: a thin binding, no logic of its own.
//!
//! What each function does is documented where Python's users look: in `csi_core/_allocator.pyi`.

mod file_map;
mod os_error;
mod packed;

#[pyo3::pymodule(gil_used = false)]
mod _allocator {
    use csi_core_allocator::file_map::flags;

    #[pymodule_export]
    const EXTENT_LAST: u32 = flags::LAST;
    #[pymodule_export]
    const EXTENT_UNWRITTEN: u32 = flags::UNWRITTEN;
    #[pymodule_export]
    const EXTENT_SHARED: u32 = flags::SHARED;

    #[pymodule_export]
    use crate::file_map::{
        allocated_bytes, clone_range, data_ranges, diff_extents, fiemap, merge_extents, shared_bytes,
    };
}
