//! Extents that were freed and still hold their last owner's data.

use std::collections::BTreeMap;

use super::run::Span;

/// A set of addresses as the fewest spans. Small beside the free runs: zeroing empties it again.
#[derive(Debug, Default)]
pub struct Quarantine {
    /// End by start.
    spans: BTreeMap<u64, u64>,
    extents: u64,
}

impl Quarantine {
    pub fn extents(&self) -> u64 {
        self.extents
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.extents == 0
    }

    pub fn runs(&self) -> usize {
        self.spans.len()
    }

    pub fn spans(&self) -> impl Iterator<Item = Span> + use<'_> {
        self.spans.iter().map(|(&start, &end)| Span::new(start, end))
    }

    /// The last quarantined span that has extents of `span`.
    pub fn meeting(&self, span: Span) -> Option<Span> {
        let (&start, &end) = self.spans.range(..span.end).next_back()?;
        (end > span.start).then(|| Span::new(start, end))
    }

    /// Adds a span that meets none of the set, and joins it with those that it touches.
    pub fn add(&mut self, span: Span) {
        debug_assert!(self.meeting(span).is_none());
        self.extents += span.length();
        let mut joined = span;
        if let Some(end) = self.spans.remove(&span.end) {
            joined.end = end;
        }
        if let Some((&start, &end)) = self.spans.range(..span.start).next_back()
            && end == span.start
        {
            joined.start = start;
        }
        self.spans.insert(joined.start, joined.end);
    }

    /// Takes a span out; false, and nothing is changed, where not all of it is in the set.
    pub fn remove(&mut self, span: Span) -> bool {
        let Some(whole) = self.meeting(span) else { return false };
        if whole.start > span.start || whole.end < span.end {
            return false;
        }
        self.extents -= span.length();
        self.spans.remove(&whole.start);
        if whole.start < span.start {
            self.spans.insert(whole.start, span.start);
        }
        if span.end < whole.end {
            self.spans.insert(span.end, whole.end);
        }
        true
    }

    /// Bytes of memory, estimated: the map does not tell.
    pub fn memory_bytes(&self) -> usize {
        self.spans.len() * 2 * size_of::<(u64, u64)>()
    }
}
