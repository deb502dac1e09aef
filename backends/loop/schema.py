"""The tables of pool.db, their version, and how an older file becomes a newer one."""

from __future__ import annotations

from typing import Final

__all__ = ["APPLICATION_ID", "MIGRATIONS", "SCHEMA", "SCHEMA_VERSION"]

APPLICATION_ID: Final = 0x63734C31

_EXTENTS: Final = """
CREATE TABLE extent_pool (            -- one row where the layout is "extents", none where it is "images"
    uuid TEXT NOT NULL,               -- stands at the beginning of every segment, too
    extent_bytes INTEGER NOT NULL
);
CREATE TABLE segment (
    number INTEGER PRIMARY KEY,       -- from 0, without a gap
    path TEXT NOT NULL UNIQUE,
    extents INTEGER NOT NULL,
    state TEXT NOT NULL               -- preparing: being filled with zeros, holds nothing; ready
);
CREATE TABLE run (                    -- where a volume, a snapshot or what is in the trash lies
    key TEXT NOT NULL,
    position INTEGER NOT NULL,        -- in the volume, from 0
    segment INTEGER NOT NULL,
    start INTEGER NOT NULL,           -- in extents, like length
    length INTEGER NOT NULL,
    PRIMARY KEY (key, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX run_place ON run (segment, start);
"""

SCHEMA: Final = (
    """
CREATE TABLE volume (
    key TEXT PRIMARY KEY,             -- the handle without its pool
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,              -- creating: not answered yet; promised: no image so far; ready: image must exist
    size_bytes INTEGER NOT NULL,      -- what the claim gets; less may be there of an elastic one
    thick INTEGER NOT NULL,
    charge_bytes INTEGER NOT NULL,    -- what it takes from the pool's capacity
    formatted TEXT NOT NULL,          -- filesystem made on it, '' before; once set it is never formatted again
    mkfs_options TEXT NOT NULL,
    source TEXT NOT NULL,             -- handle of the snapshot or volume it was copied from, or ''
    recorded TEXT NOT NULL,           -- parameters as JSON
    created_us INTEGER NOT NULL       -- microseconds since 1970, UTC
) WITHOUT ROWID;
CREATE TABLE snapshot (
    key TEXT PRIMARY KEY,
    name TEXT UNIQUE,                 -- NULL for members of a group
    state TEXT NOT NULL,              -- creating, ready
    volume_key TEXT NOT NULL,         -- may be gone: snapshots outlive their volume
    group_key TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    charge_bytes INTEGER NOT NULL,
    formatted TEXT NOT NULL,
    recorded TEXT NOT NULL,
    created_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX snapshot_of_volume ON snapshot (volume_key, key);
CREATE INDEX snapshot_of_group ON snapshot (group_key, key) WHERE group_key <> '';
CREATE TABLE snapshot_group (
    key TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,              -- creating, ready
    recorded TEXT NOT NULL,
    created_us INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE trash (                  -- images to free, runs to fill with zeros; charged until that is done
    key TEXT PRIMARY KEY,
    charge_bytes INTEGER NOT NULL
) WITHOUT ROWID;
"""
    + _EXTENTS
)

MIGRATIONS: Final = {1: _EXTENTS}
"""By version, the statements that make the next one of it. Version 1 knew the layout "images" only."""

SCHEMA_VERSION: Final = max(MIGRATIONS) + 1
