//! The coordinator as its caller sees it: scenarios, and random interleavings.

mod interleavings;
mod offsets;
mod scenarios;
mod tables;
mod world;
