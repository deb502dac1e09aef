//! Reading the maps of real files, on whatever filesystem the temporary directory is.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;

use csi_core_allocator::file_map::{FileMap, changed_ranges, read};

const MIB: u64 = 1 << 20;

/// A file with `pieces` of 1 MiB, every second one a hole; `None` where files have no maps (tmpfs).
fn combed_file(pieces: u64) -> Option<File> {
    let file = tempfile::tempfile().unwrap();
    for piece in (0..pieces).step_by(2) {
        file.write_all_at(&vec![7; 65536], piece * MIB).unwrap();
    }
    match read(&file, 0, u64::MAX, true) {
        Err(error) if error.kind() == ErrorKind::Unsupported => None,
        _ => Some(file),
    }
}

fn map(file: &File, start_bytes: u64, length_bytes: u64) -> FileMap {
    read(file, start_bytes, length_bytes, true).unwrap()
}

#[test]
fn holes_are_not_allocated() {
    let Some(file) = combed_file(1500) else { return };
    let whole = map(&file, 0, u64::MAX);
    assert_eq!(whole.allocated_bytes(), 750 * 65536, "more than one slice of the kernel's");
    assert_eq!(whole.data_ranges().len(), 750);
    assert_eq!(changed_ranges(&whole, &whole), []);
}

#[test]
fn a_part_is_clipped_to_its_range() {
    let Some(file) = combed_file(8) else { return };
    let part = map(&file, 2 * MIB + 4096, 8192);
    assert_eq!(part.extents().len(), 1);
    assert_eq!((part.extents()[0].logical_bytes, part.extents()[0].length_bytes), (2 * MIB + 4096, 8192));
    assert_eq!(map(&file, MIB + 65536, 4096).extents(), []);
    assert_eq!(map(&file, 0, 0).extents(), []);
}

#[test]
fn two_files_differ_where_either_has_data() {
    let (Some(a), Some(b)) = (combed_file(4), combed_file(2)) else { return };
    let ranges = changed_ranges(&map(&a, 0, u64::MAX), &map(&b, 0, u64::MAX));
    assert_eq!(
        ranges.iter().map(|r| (r.offset_bytes, r.length_bytes)).collect::<Vec<_>>(),
        [(0, 65536), (2 * MIB, 65536)]
    );
}
