//! Maps against a naive model that knows the place of every single block.

use csi_core_allocator::file_map::{ByteRange, FileExtent, FileMap, changed_ranges, flags};
use proptest::prelude::*;

const BLOCK_BYTES: u64 = 4096;
const BLOCKS: u64 = 96;

/// A map made of pieces of (hole before, length, physical block, flags), in blocks.
fn any_map() -> impl Strategy<Value = FileMap> {
    let some_flags = prop_oneof![
        6 => Just(0),
        2 => Just(flags::UNWRITTEN),
        2 => Just(flags::SHARED),
        1 => Just(flags::ENCODED | flags::SHARED),
        1 => Just(flags::DELALLOC | flags::UNKNOWN),
        1 => Just(flags::MERGED),
    ];
    let piece = (0..4_u64, 1..6_u64, 0..24_u64, some_flags);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| {
        let mut position = 0;
        let mut extents = Vec::new();
        for (hole, length, physical, flags) in pieces {
            position += hole;
            extents.push(FileExtent {
                logical_bytes: position * BLOCK_BYTES,
                physical_bytes: physical * BLOCK_BYTES,
                length_bytes: length * BLOCK_BYTES,
                flags,
            });
            position += length;
        }
        FileMap::new(extents).expect("ascending by construction")
    })
}

/// What each block of the file is: `None` for a hole, else its physical offset and flags.
fn blocks(map: &FileMap) -> Vec<Option<(u64, u32)>> {
    (0..BLOCKS)
        .map(|block| {
            let at = block * BLOCK_BYTES;
            let extent = map
                .extents()
                .iter()
                .find(|e| e.logical_bytes <= at && at < e.logical_bytes + e.length_bytes)?;
            Some((extent.physical_bytes + at - extent.logical_bytes, extent.flags & !flags::MERGED))
        })
        .collect()
}

fn covered(ranges: &[ByteRange]) -> Vec<bool> {
    (0..BLOCKS)
        .map(|block| {
            let at = block * BLOCK_BYTES;
            ranges.iter().any(|r| r.offset_bytes <= at && at < r.offset_bytes + r.length_bytes)
        })
        .collect()
}

fn check_tidy(ranges: &[ByteRange]) -> Result<(), TestCaseError> {
    for pair in ranges.windows(2) {
        prop_assert!(
            pair[0].offset_bytes + pair[0].length_bytes < pair[1].offset_bytes,
            "not merged: {pair:?}"
        );
    }
    prop_assert!(ranges.iter().all(|r| r.length_bytes > 0));
    Ok(())
}

const OPAQUE: u32 = flags::ENCODED | flags::DELALLOC | flags::UNKNOWN;

proptest! {
    #[test]
    fn diff_is_the_models(a in any_map(), b in any_map()) {
        let ranges = changed_ranges(&a, &b);
        check_tidy(&ranges)?;
        let state = |flags: u32| flags & (flags::UNWRITTEN | OPAQUE);
        let expected: Vec<bool> = blocks(&a).into_iter().zip(blocks(&b)).map(|pair| match pair {
            (None, None) => false,
            (Some((p, f)), Some((q, g))) => p != q || state(f) != state(g) || f & OPAQUE != 0,
            _ => true,
        }).collect();
        prop_assert_eq!(covered(&ranges), expected);
        prop_assert_eq!(changed_ranges(&b, &a), ranges);
    }

    #[test]
    fn merging_changes_nothing_but_the_count(map in any_map()) {
        let merged = map.merged();
        prop_assert_eq!(blocks(&merged), blocks(&map));
        prop_assert_eq!(merged.allocated_bytes(), map.allocated_bytes());
        prop_assert_eq!(merged.shared_bytes(), map.shared_bytes());
        prop_assert!(merged.extents().len() <= map.extents().len());
        prop_assert_eq!(merged.merged(), merged);
    }

    #[test]
    fn sizes_are_the_models(map in any_map()) {
        let blocks = blocks(&map);
        let bytes = |count: usize| count as u64 * BLOCK_BYTES;
        prop_assert_eq!(map.allocated_bytes(), bytes(blocks.iter().flatten().count()));
        prop_assert_eq!(
            map.shared_bytes(),
            bytes(blocks.iter().flatten().filter(|(_, f)| f & flags::SHARED != 0).count())
        );
        let data = map.data_ranges();
        check_tidy(&data)?;
        let expected: Vec<bool> =
            blocks.iter().map(|b| b.is_some_and(|(_, f)| f & flags::UNWRITTEN == 0)).collect();
        prop_assert_eq!(covered(&data), expected);
    }
}

#[test]
fn what_is_no_map_is_refused() {
    let extent =
        |logical_bytes, length_bytes| FileExtent { logical_bytes, length_bytes, ..FileExtent::default() };
    let refused = |extents: Vec<FileExtent>| FileMap::new(extents).unwrap_err().index;
    assert_eq!(refused(vec![extent(0, 0)]), 0);
    assert_eq!(refused(vec![extent(0, 8), extent(4, 8)]), 1);
    assert_eq!(refused(vec![extent(8, 8), extent(0, 8)]), 1);
    assert_eq!(refused(vec![extent(u64::MAX, 8)]), 0);
    let error = FileMap::new(vec![extent(0, 8), extent(4, 9)]).unwrap_err();
    assert!(error.to_string().starts_with("extent 1 of the list (9 bytes at 4)"), "{error}");
}
