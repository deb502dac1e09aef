//! Places in crowded chunks of an index where searches may begin.
//!
//! Chunks are equal in size, so where nearly all runs lie close together, and a few far behind, one chunk may
//! have very many. Whoever walks through such a chunk leaves a landmark every `MOST_STEPS` runs, and from then
//! on nobody walks so far.

use std::collections::BTreeMap;
use std::ops::Index;

use super::node::{Node, Nodes};

/// Runs that are walked past before landmarks are looked at, and between two of them.
pub const MOST_STEPS: usize = 64;

/// Times as many landmarks as a crowd needs that are kept. With fewer, a crowd would be walked through anew too often.
const MORE_THAN_NEEDED: usize = 4;

/// Some runs of a segment, by their ends. Those that end elsewhere now, or are no runs any more, do not count:
/// whoever changes a run need not know.
#[derive(Debug, Default)]
pub struct Landmarks(BTreeMap<u64, u32>);

impl Landmarks {
    /// The first run from `id` on that ends at `address` or behind it, or else the border.
    pub fn search(&mut self, nodes: &impl Index<u32, Output = Node>, id: u32, address: u64) -> u32 {
        let far = match walk(nodes, id, address) {
            Ok(id) => return id,
            Err(id) => id,
        };
        self.forget_former(nodes, far, address);
        let mut id = self.before(nodes, far, address);
        loop {
            match walk(nodes, id, address) {
                Ok(id) => return id,
                Err(far) => id = far,
            }
            self.0.insert(nodes[id].end, id);
        }
    }

    /// As `search`, but leaves no landmarks.
    pub fn find(&self, nodes: &Nodes, id: u32, address: u64) -> u32 {
        walk(nodes, id, address).unwrap_or_else(|id| {
            let mut id = self.before(nodes, id, address);
            while nodes[id].end < address {
                id = nodes[id].place_next;
            }
            id
        })
    }

    /// Forgets all where there are far more than so many runs need: most do not count, and who comes by leaves new ones.
    pub fn forget_too_many(&mut self, runs: usize) {
        if self.0.len() > MOST_STEPS + MORE_THAN_NEEDED * runs / MOST_STEPS {
            self.0.clear();
        }
    }

    /// The runs that count.
    pub fn runs<'a>(&'a self, nodes: &'a Nodes) -> impl Iterator<Item = u32> + use<'a> {
        self.0.iter().filter(|&(&end, &id)| nodes[id].end == end).map(|(_, &id)| id)
    }

    /// Takes note of new numbers of all runs, by the old ones.
    pub fn renumber(&mut self, numbers: &[u32]) {
        for id in self.0.values_mut() {
            *id = numbers[*id as usize];
        }
    }

    /// Bytes of memory, about.
    pub fn memory_bytes(&self) -> usize {
        self.0.len() * 2 * size_of::<(u64, u32)>()
    }

    /// The last landmark that ends before `address`, or else `id`, which does.
    fn before(&self, nodes: &impl Index<u32, Output = Node>, id: u32, address: u64) -> u32 {
        let mut between = self.0.range(nodes[id].end..address).rev();
        between.find(|&(&end, &landmark)| nodes[landmark].end == end).map_or(id, |(_, &landmark)| landmark)
    }

    /// Forgets what does not count behind `id`, from `address` down to the first that does.
    fn forget_former(&mut self, nodes: &impl Index<u32, Output = Node>, id: u32, address: u64) {
        let begin = nodes[id].end;
        while let Some((&end, &landmark)) = self.0.range(begin..address).next_back()
            && nodes[landmark].end != end
        {
            self.0.remove(&end);
        }
    }
}

/// The first run from `id` on that ends at `address` or behind it.
///
/// # Errors
/// The run that the walk was given up at: it does not reach there either.
fn walk(nodes: &impl Index<u32, Output = Node>, mut id: u32, address: u64) -> Result<u32, u32> {
    for _ in 0..MOST_STEPS {
        let node = &nodes[id];
        if node.end >= address {
            return Ok(id);
        }
        id = node.place_next;
    }
    if nodes[id].end >= address { Ok(id) } else { Err(id) }
}

#[cfg(test)]
mod tests {
    use super::super::node::{NIL, Node, Nodes};
    use super::{Landmarks, MOST_STEPS, walk};

    const RUNS: usize = 100 * MOST_STEPS;
    const FAR: u64 = 2 * RUNS as u64 - 1;

    /// A ring of runs of one extent, every second extent, and the first of them.
    fn crowd() -> (Nodes, u32) {
        let mut nodes = Nodes::new();
        let border = nodes.add_border();
        for number in 0..RUNS as u64 {
            let id = nodes.take_unused();
            let mut row = nodes.row();
            let place_previous = row[border].place_previous;
            let (start, end) = (2 * number, 2 * number + 1);
            row[id] =
                Node { start, end, place_previous, place_next: border, bin_previous: NIL, bin_next: NIL };
            row[place_previous].place_next = id;
            row[border].place_previous = id;
        }
        let first = nodes[border].place_next;
        (nodes, first)
    }

    fn remove(nodes: &mut Nodes, id: u32) {
        let (previous, next) = (nodes[id].place_previous, nodes[id].place_next);
        let mut row = nodes.row();
        row[previous].place_next = next;
        row[next].place_previous = previous;
        nodes.give_back(id);
    }

    /// How many runs are walked past from the landmark on, or from the run where they are asked for.
    fn steps(landmarks: &Landmarks, nodes: &Nodes, first: u32, address: u64) -> usize {
        let target = landmarks.find(nodes, first, address);
        let Err(id) = walk(nodes, first, address) else { return 0 };
        let begin = landmarks.before(nodes, id, address);
        std::iter::successors(Some(begin), |&id| (id != target).then(|| nodes[id].place_next)).count() - 1
    }

    #[test]
    fn nobody_walks_far_twice() {
        let (mut nodes, first) = crowd();
        let mut landmarks = Landmarks::default();
        let bounded = |landmarks: &Landmarks, nodes: &Nodes| {
            (1..FAR).all(|address| steps(landmarks, nodes, first, address) <= MOST_STEPS)
        };
        assert!(!bounded(&landmarks, &nodes));
        let last = landmarks.search(&nodes, first, FAR);
        assert_eq!(nodes[last].end, FAR);
        assert!(bounded(&landmarks, &nodes));
        assert!((95..100).contains(&landmarks.runs(&nodes).count()));

        // What is no run any more is no landmark, and what is lost by that is found again.
        for id in landmarks.runs(&nodes).collect::<Vec<_>>() {
            remove(&mut nodes, id);
        }
        assert_eq!(landmarks.runs(&nodes).count(), 0);
        landmarks.search(&nodes, first, FAR);
        assert!(bounded(&landmarks, &nodes));

        // Nor is one that ends elsewhere now.
        let id = landmarks.runs(&nodes).next().unwrap();
        nodes.row()[id].end += 1;
        assert!(landmarks.runs(&nodes).all(|landmark| landmark != id));
        let end = nodes[id].end;
        assert_eq!(landmarks.search(&nodes, first, end), id);
    }
}
