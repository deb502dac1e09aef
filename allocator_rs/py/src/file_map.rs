//! FIEMAP, its sizes and differences, FICLONERANGE.

use csi_core_allocator::file_map;
use csi_core_allocator_ioctl as ioctl;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::os_error::os_error;
use crate::packed::{pack_extents, pack_ranges, unpack_map};

#[pyfunction]
#[pyo3(signature = (fd, start_bytes = 0, length_bytes = None, *, sync = true))]
pub fn fiemap(
    py: Python<'_>,
    fd: i32,
    start_bytes: u64,
    length_bytes: Option<u64>,
    sync: bool,
) -> PyResult<Bound<'_, PyBytes>> {
    let read = || file_map::read(ioctl::duplicate(fd)?, start_bytes, length_bytes.unwrap_or(u64::MAX), sync);
    let map = py.detach(read).map_err(os_error)?;
    pack_extents(py, map.extents())
}

#[pyfunction]
pub fn merge_extents<'py>(py: Python<'py>, extents: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let merged = py.detach(|| unpack_map(extents).map(|map| map.merged()))?;
    pack_extents(py, merged.extents())
}

#[pyfunction]
pub fn allocated_bytes(extents: &[u8]) -> PyResult<u64> {
    Ok(unpack_map(extents)?.allocated_bytes())
}

#[pyfunction]
pub fn shared_bytes(extents: &[u8]) -> PyResult<u64> {
    Ok(unpack_map(extents)?.shared_bytes())
}

#[pyfunction]
pub fn data_ranges<'py>(py: Python<'py>, extents: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let ranges = py.detach(|| unpack_map(extents).map(|map| map.data_ranges()))?;
    pack_ranges(py, &ranges)
}

#[pyfunction]
pub fn diff_extents<'py>(py: Python<'py>, a: &[u8], b: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let ranges = py.detach(|| PyResult::Ok(file_map::changed_ranges(&unpack_map(a)?, &unpack_map(b)?)))?;
    pack_ranges(py, &ranges)
}

#[pyfunction]
pub fn clone_range(
    py: Python<'_>,
    source_fd: i32,
    source_offset_bytes: u64,
    length_bytes: u64,
    target_fd: i32,
    target_offset_bytes: u64,
) -> PyResult<()> {
    let clone = || {
        let (source, target) = (ioctl::duplicate(source_fd)?, ioctl::duplicate(target_fd)?);
        ioctl::clone_range(source, source_offset_bytes, length_bytes, target, target_offset_bytes)
    };
    py.detach(clone).map_err(os_error)
}
