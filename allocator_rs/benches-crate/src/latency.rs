//! How long single calls take.

use std::time::Instant;

/// Durations of single calls, in nanoseconds.
#[derive(Default)]
pub struct Latency {
    nanoseconds: Vec<u32>,
}

impl Latency {
    /// Does `call`, and measures it where somebody wants to know.
    #[inline]
    pub fn of<T>(latency: &mut Option<Self>, call: impl FnOnce() -> T) -> T {
        let Some(latency) = latency else { return call() };
        let begin = Instant::now();
        let answer = call();
        let nanoseconds = begin.elapsed().as_nanos();
        latency.nanoseconds.push(u32::try_from(nanoseconds).unwrap_or(u32::MAX));
        answer
    }

    /// The duration that so many of 1000 calls stay below, less what reading the clock takes.
    pub fn permille(&mut self, permille: usize) -> u32 {
        if self.nanoseconds.is_empty() {
            return 0;
        }
        self.nanoseconds.sort_unstable();
        let at = (self.nanoseconds.len() * permille / 1000).min(self.nanoseconds.len() - 1);
        self.nanoseconds[at].saturating_sub(clock_nanoseconds())
    }
}

/// What two readings of the clock are apart at best.
fn clock_nanoseconds() -> u32 {
    let read = |_| Instant::now().elapsed().as_nanos();
    u32::try_from((0..1000).map(read).min().unwrap_or(0)).unwrap_or(0)
}
