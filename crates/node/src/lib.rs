//! The crossing.
