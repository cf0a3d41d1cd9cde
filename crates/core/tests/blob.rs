//! Blob stores: what they make of every name and every file, on the simulated disk and on this machine's.

#![cfg(feature = "planted")]

#[path = "blob/desk.rs"]
mod desk;
#[path = "blob/fixtures.rs"]
mod fixtures;
