//! Time that this thread has spent working: others on the machine cost it caches, but not its turn.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The processor time of this thread so far, in nanoseconds.
pub fn worked() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// How long this thread has worked since `begin`, a reading of [`worked`].
pub fn worked_since(begin: i64) -> Duration {
    Duration::from_nanos(u64::try_from(worked() - begin).unwrap_or(0))
}

/// Nanoseconds a call of so many since `begin`, a reading of [`worked`].
pub fn a_call_since(begin: i64, calls: u64) -> f64 {
    (worked() - begin) as f64 / calls as f64
}

/// The value that this part of all stays below; NaN for none.
#[expect(clippy::cast_sign_loss, reason = "parts are positive")]
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get((values.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN)
}
