"""The layout ``extents``: many volumes packed into a few block devices or preallocated files."""
