//! Extents that several volumes or snapshots own: how many owners each has.

use std::collections::BTreeMap;

use super::run::Span;

/// Only what has two owners or more is kept: in a pool without snapshots this is empty and costs nothing.
#[derive(Debug, Default)]
pub struct SharedExtents {
    /// By start; never touching one another with the same number of owners.
    spans: BTreeMap<u64, Shared>,
    extents: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shared {
    end: u64,
    /// Two or more.
    owners: u64,
}

impl SharedExtents {
    /// Extents that have two owners or more.
    pub fn extents(&self) -> u64 {
        self.extents
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.extents == 0
    }

    /// Every shared span with its number of owners, ascending.
    pub fn spans(&self) -> impl Iterator<Item = (Span, u64)> + use<'_> {
        self.spans.iter().map(|(&start, shared)| (Span::new(start, shared.end), shared.owners))
    }

    /// Adds an owner to every extent of `span`, all of which have one at least.
    pub fn add_owner(&mut self, span: Span) {
        for (part, owners) in self.cut_out(span) {
            self.put(part, owners + 1);
        }
        self.join_around(span);
    }

    /// Takes an owner from every extent of `span`; answers with the parts that have none any more.
    pub fn remove_owner(&mut self, span: Span) -> Vec<Span> {
        let mut ownerless = Vec::new();
        for (part, owners) in self.cut_out(span) {
            match owners {
                1 => ownerless.push(part),
                2 => {}
                _ => self.put(part, owners - 1),
            }
        }
        self.join_around(span);
        ownerless
    }

    /// Sets the number of owners of a span that is not in the map and lies behind all that are.
    pub fn append(&mut self, span: Span, owners: u64) {
        if owners >= 2 {
            self.put(span, owners);
            self.join_at(span.start);
        }
    }

    /// Bytes of memory, estimated: the map does not tell.
    pub fn memory_bytes(&self) -> usize {
        self.spans.len() * 2 * size_of::<(u64, Shared)>()
    }

    /// Takes `span` out of the map: its parts, ascending, with the owners that they had (1: not in the map).
    fn cut_out(&mut self, span: Span) -> Vec<(Span, u64)> {
        self.split_at(span.start);
        self.split_at(span.end);
        let mut parts = Vec::new();
        let mut position = span.start;
        while let Some((&start, &shared)) = self.spans.range(position..span.end).next() {
            if position < start {
                parts.push((Span::new(position, start), 1));
            }
            let part = Span::new(start, shared.end);
            parts.push((part, shared.owners));
            self.spans.remove(&start);
            self.extents -= part.length();
            position = shared.end;
        }
        if position < span.end {
            parts.push((Span::new(position, span.end), 1));
        }
        parts
    }

    fn put(&mut self, span: Span, owners: u64) {
        self.spans.insert(span.start, Shared { end: span.end, owners });
        self.extents += span.length();
    }

    /// Makes two entries of the one that `address` lies inside of.
    fn split_at(&mut self, address: u64) {
        if let Some((&start, &whole)) = self.spans.range(..address).next_back()
            && whole.end > address
        {
            self.spans.insert(start, Shared { end: address, ..whole });
            self.spans.insert(address, whole);
        }
    }

    fn join_around(&mut self, span: Span) {
        let starts: Vec<u64> = self.spans.range(span.start..=span.end).map(|(&start, _)| start).collect();
        for start in starts {
            self.join_at(start);
        }
    }

    /// Makes one entry of those that meet at `address`, where they have the same owners.
    fn join_at(&mut self, address: u64) {
        let Some(&behind) = self.spans.get(&address) else { return };
        if let Some((_, before)) = self.spans.range_mut(..address).next_back()
            && before.end == address
            && before.owners == behind.owners
        {
            before.end = behind.end;
            self.spans.remove(&address);
        }
    }
}
