//! Lists as buffers of 64-bit words in the machine's byte order: an element costs a copy, not a tuple.

use csi_core_allocator::file_map::{ByteRange, FileExtent, FileMap};
use csi_core_allocator::pool::Run;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

const WORD_BYTES: usize = size_of::<u64>();

/// Writes one element of `N` words for each of `items`.
pub fn pack<'py, T, const N: usize>(
    py: Python<'py>,
    items: &[T],
    words: impl Fn(&T) -> [u64; N],
) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, items.len() * N * WORD_BYTES, |buffer| {
        let (slots, _) = buffer.as_chunks_mut::<WORD_BYTES>();
        for (slot, item) in slots.chunks_exact_mut(N).zip(items) {
            for (bytes, word) in slot.iter_mut().zip(words(item)) {
                *bytes = word.to_ne_bytes();
            }
        }
        Ok(())
    })
}

/// Reads elements of `N` words.
///
/// # Errors
/// `ValueError` where the buffer is not a whole number of elements.
pub fn unpack<const N: usize>(buffer: &[u8]) -> PyResult<impl Iterator<Item = [u64; N]>> {
    if !buffer.len().is_multiple_of(N * WORD_BYTES) {
        return Err(PyValueError::new_err(format!(
            "{} bytes are not a whole number of elements of {} bytes",
            buffer.len(),
            N * WORD_BYTES
        )));
    }
    let (words, _) = buffer.as_chunks::<WORD_BYTES>();
    let (elements, _) = words.as_chunks::<N>();
    Ok(elements.iter().map(|element| element.map(u64::from_ne_bytes)))
}

/// Extents of a file as (logical, physical, length, flags).
pub fn pack_extents<'py>(py: Python<'py>, extents: &[FileExtent]) -> PyResult<Bound<'py, PyBytes>> {
    pack(py, extents, |e| [e.logical_bytes, e.physical_bytes, e.length_bytes, e.flags.into()])
}

/// Ranges of a file as (offset, length).
pub fn pack_ranges<'py>(py: Python<'py>, ranges: &[ByteRange]) -> PyResult<Bound<'py, PyBytes>> {
    pack(py, ranges, |r| [r.offset_bytes, r.length_bytes])
}

/// Runs of a pool as (segment, start, length).
pub fn pack_runs<'py>(py: Python<'py>, runs: &[Run]) -> PyResult<Bound<'py, PyBytes>> {
    pack(py, runs, |run| [run.segment.into(), run.start, run.length])
}

/// Reads a map as [`pack_extents`] wrote it.
///
/// # Errors
/// `ValueError` where the buffer is not one, or holds what no file can have.
pub fn unpack_map(buffer: &[u8]) -> PyResult<FileMap> {
    let extents = unpack::<4>(buffer)?.map(|[logical_bytes, physical_bytes, length_bytes, flags]| {
        let flags = u32::try_from(flags)
            .map_err(|_| PyValueError::new_err(format!("{flags:#x} are not the flags of an extent")))?;
        Ok(FileExtent { logical_bytes, physical_bytes, length_bytes, flags })
    });
    let extents = extents.collect::<PyResult<Vec<_>>>()?;
    FileMap::new(extents).map_err(|error| PyValueError::new_err(error.to_string()))
}
