//! Blob stores: what they make of every name and every file, on the simulated disk and on this machine's.

#![cfg(feature = "planted")]

#[macro_use]
mod backends;
#[path = "blob/desk.rs"]
mod desk;
#[path = "blob/direct.rs"]
mod direct;
#[path = "blob/durability.rs"]
mod durability;
#[cfg(unix)]
#[path = "blob/file_system.rs"]
mod file_system;
#[path = "blob/fixtures.rs"]
mod fixtures;
#[path = "blob/names.rs"]
mod names;
