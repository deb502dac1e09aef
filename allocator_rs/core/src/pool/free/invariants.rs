//! The rules that tie nodes, bins and index together.

use super::FreeRuns;
use super::bins::{BINS, bin_of};

impl FreeRuns {
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self) -> Result<(), String> {
        self.check_places()?;
        self.check_bins()
    }

    /// Every run once in the index, ascending, none touching another, all extents counted.
    fn check_places(&self) -> Result<(), String> {
        let mut runs = 0;
        let mut extents = 0;
        for (number, segment) in self.segments.iter().enumerate() {
            let mut reached = None;
            for id in segment.ascending(&self.nodes) {
                let node = self.nodes[id];
                if node.start >= node.end || node.end > self.segment_end(number) {
                    return Err(format!(
                        "a free run from {} to {} in segment {number}",
                        node.start, node.end
                    ));
                }
                if reached.is_some_and(|end| node.start <= end) {
                    return Err(format!("the free run at {} touches the one before it", node.start));
                }
                for address in [node.start, node.start + 1, node.end] {
                    if segment.found(&self.nodes, address) != id {
                        return Err(format!("the free run at {} is not found by {address}", node.start));
                    }
                }
                if self.nodes[node.place_next].place_previous != id {
                    return Err(format!("the run behind the free run at {} does not know it", node.start));
                }
                reached = Some(node.end);
                runs += 1;
                extents += node.length();
            }
            for id in segment.landmarks(&self.nodes) {
                let end = self.nodes[id].end;
                if segment.found(&self.nodes, end) != id {
                    return Err(format!("the landmark that ends at {end} is no free run"));
                }
            }
        }
        if (runs, extents) == (self.runs(), self.extents) {
            return Ok(());
        }
        Err(format!(
            "{runs} free runs of {extents} extents, but {} of {} were counted",
            self.runs(),
            self.extents
        ))
    }

    /// Every run once in the bin of its length, linked both ways, the bin's figures right.
    fn check_bins(&self) -> Result<(), String> {
        let mut runs = 0;
        for number in 0..BINS {
            let mut count = 0;
            for id in self.bins.members(&self.nodes, number) {
                let length = self.nodes[id].length();
                if bin_of(length) != number || length > self.bins.longest() {
                    return Err(format!("the free run at {} is wrong in bin {number}", self.nodes[id].start));
                }
                count += 1;
            }
            if (count > 0) != (self.bins.filled_from(number) == Some(number)) {
                return Err(format!("bin {number} has {count} free runs, but its bit says otherwise"));
            }
            runs += count;
        }
        if runs == self.runs() {
            Ok(())
        } else {
            Err(format!("{runs} free runs in bins, {} in all", self.runs()))
        }
    }
}
