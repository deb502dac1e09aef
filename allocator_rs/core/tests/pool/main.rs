//! The extent allocator against a naive model that keeps the state of every single extent.

#![allow(clippy::cast_possible_truncation)] // a few thousand extents

mod crowded;
mod examples;
mod long_run;
mod memory;
mod model;
mod sequences;
