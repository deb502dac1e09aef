//! The space accounting core of csi-core, without any Python.
//!
//! [`file_map`] reads where the blocks of a file lie (FIEMAP), measures them exactly and compares two
//! reflinked files without reading their data.

#![forbid(unsafe_code)]

pub mod file_map;
