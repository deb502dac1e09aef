//! The rules that tie nodes, bins and index together.

use super::FreeRuns;
use super::bins::{BINS, bin_of, members};

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
                if segment.around(&self.nodes, node.start).1 != id {
                    return Err(format!("the free run at {} is not found by its start", node.start));
                }
                if segment.around(&self.nodes, node.end).0 != id {
                    return Err(format!("the free run at {} is not found by its end", node.start));
                }
                reached = Some(node.end);
                runs += 1;
                extents += node.length();
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
            let mut previous = None;
            for id in members(&self.nodes, number) {
                let node = self.nodes[id];
                let filed = node.bin as usize == number && bin_of(node.length()) == number;
                let linked = previous.is_none_or(|previous| previous == node.bin_previous);
                if !filed || !linked || node.length() > self.bins.longest(number) {
                    return Err(format!("the free run at {} is wrong in bin {number}", node.start));
                }
                previous = Some(id);
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
