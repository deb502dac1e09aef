//! Errors of the kernel as `OSError` with its `errno`, which the plain conversion leaves out.

use std::io;

use pyo3::PyErr;
use pyo3::exceptions::PyOSError;

/// `OSError(errno, message)`, so that Python picks the subclass (`PermissionError`, say).
#[expect(clippy::needless_pass_by_value, reason = "stands in map_err")]
pub fn os_error(error: io::Error) -> PyErr {
    let text = error.to_string();
    let Some(errno) = error.raw_os_error() else {
        return PyOSError::new_err(text);
    };
    let message = text.split(" (os error").next().unwrap_or(&text).to_owned();
    PyOSError::new_err((errno, message))
}
