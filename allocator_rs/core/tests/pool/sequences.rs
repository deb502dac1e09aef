//! Short sequences, shrunk to the shortest that fails; everything compared after every step.

use proptest::prelude::*;

use crate::model::{Step, Twins};

fn any_step() -> impl Strategy<Value = Step> {
    let length = || prop_oneof![4 => 1..12_u64, 2 => 1..80_u64, 1 => 1..400_u64];
    let place = || (0..100_000_u64, length());
    prop_oneof![
        6 => (length(), prop_oneof![3 => Just(0), 1 => 0..7_u32], prop_oneof![3 => Just(0), 1 => 0..40_u64])
            .prop_map(|(length, alignment_log, room)| Step::Allocate { length, alignment_log, room }),
        2 => (prop::array::uniform4(length()), 0..3_u32)
            .prop_map(|(lengths, alignment_log)| Step::Batch { lengths, alignment_log }),
        1 => (1..500_u64, 0..12_usize).prop_map(|(length, max_runs)| Step::Scatter { length, max_runs }),
        2 => (place(), 0..20_u64).prop_map(|((at, length), by)| Step::Extend { at, length, by }),
        6 => place().prop_map(|(at, length)| Step::Free { at, length }),
        2 => place().prop_map(|(at, length)| Step::Quarantine { at, length }),
        2 => place().prop_map(|(at, length)| Step::Reclaim { at, length }),
        2 => place().prop_map(|(at, length)| Step::Share { at, length }),
        1 => (0..3_u32, 1..200_u64).prop_map(|(segment, by)| Step::GrowSegment { segment, by }),
        1 => Just(Step::Rebuild),
    ]
}

proptest! {
    #[test]
    fn any_sequence_is_the_models(
        segments in prop::collection::vec(1..500_u64, 1..4),
        steps in prop::collection::vec(any_step(), 1..60),
    ) {
        let mut twins = Twins::new(&segments);
        for step in steps {
            twins.step(step);
            twins.compare();
        }
    }
}
