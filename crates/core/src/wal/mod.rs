//! The write-ahead log.
//!
//! # The life of an append
//!
//! ```text
//!    any thread                     the log's thread                                    the disk
//!
//!    Handle::submit ──copy──▶ ┌──────────┐
//!                             │ mailbox  │  a batch takes runs until a place at the disk is free
//!         wake ─────────────▶ └────┬─────┘
//!                                  ▼ accept
//!                             ┌──────────┐ next: frame it (LSN, CRCs, durable LSN) ──▶ write ──┐
//!                             │   Log    │                                                     │ up to 4 at once
//!                             │          │ ◀── on_done: complete, or durable by its own DSYNC ─┘
//!                             │          │ next: flush, one at a time ─────────────────▶ fdatasync
//!                             │          │ ◀── on_done: what it covers is durable
//!                             └────┬─────┘
//!                                  ▼ advance: over what is durable, without a gap
//!    Handle::status ◀── publish ── durable LSN ──▶ listener
//! ```
//!
//! Beside this road, on one helper thread and in order: the next segment is made when this one is half full,
//! blocks are zeroed ahead of the tail, HEAD is replaced.
//!
//! # Cost of an append
//!
//! One copy on this floor (into the batch, which is the frame the kernel reads), one pass of CRC-32C, one
//! syscall a batch where it travels alone, two otherwise (write, flush); one wake of the log's thread a
//! submission, and none while it is awake.
//!
//! # Invariants
//!
//! 1. LSNs are dense, from 1, in the order of submission. (`Shared::submit`, `Log::accept`)
//! 2. A frame is written once, at the tail; the tail only moves forward. (`Log::submit_frame`)
//! 3. The durable LSN moves only over frames that are durable, and every frame before them. (`Log::advance`,
//!    durability rule 1)
//! 4. A seal is written when everything before it is durable and the next segment has its name.
//!    (`Log::is_ready_to_rotate`)
//! 5. After a failure no watermark moves and nothing more is submitted. (`Log::fail`, rule 2)
//! 6. HEAD claims only what is durable. (`Log::next_head`)
//! 7. No frame is written into a range whose zeroing is in flight. (`Segment::is_clear`)

mod batch;
mod directory;
mod flushes;
pub mod handle;
mod head;
pub mod key_value;
mod link;
mod lock;
mod log;
mod machine;
mod mailbox;
pub mod reader;
mod recovery;
pub mod report;
pub mod salvage;
mod scan;
mod segment;
pub mod service;
mod stats;
mod survey;
pub mod verify;
mod walk;
mod window;

pub use handle::{
    Answer, Check, Format, Handle, Listener, Opened, Options, Phase, Records, Recovery, Refusal, Request,
    Run, SegmentInfo, Sequences, Stats, Status, SyncMode, TornAt,
};
pub use reader::{Chunk, Reader, Source, read};
pub use report::{Damage, Report, Torn, Verdict};
pub use salvage::{Salvager, salvage};
pub use service::{Service, Starting};
pub use verify::verify;
