//! The crossing: JavaScript values in, completions out. It translates, and it looks after the lives of the
//! threads below; it decides nothing about durability.
//!
//! # One way down, one way back
//!
//! ```text
//!   JavaScript thread                                            service threads, one a log
//!
//!   append(record)                                               ┌───────────────────────┐
//!     copy into staging, make the promise                        │ core's Handle         │
//!   once a tick:                                                 │                       │
//!     submit(wal, staging, …) ── bytes copied under a lock ────▶ │ mailbox ─▶ batch ─▶ … │
//!                                                                │                       │
//!   poll(wal, status) ◀── read watermarks, settle in order ───── │ status                │
//!        ▲                                                       └──────────┬────────────┘
//!        │                                                                  │ listener
//!   callback() ◀── one weak threadsafe call, to begin with ─────── Road ◀───┘
//! ```
//!
//! * **Down.** Records are collected by JavaScript in a buffer that it alone touches. One call a tick hands
//!   them over; their bytes are copied before that call returns. What is written to a blob is copied as well. The
//!   functions of this path are free functions over a number: an argument that is an object of a class costs a
//!   microsecond a call.
//! * **Back.** Nothing is carried back but "look". Of a log the watermarks say it all, since records settle in order;
//!   of a store its calls' numbers do. So a thousand completions between two turns of the event loop cost one wake;
//!   once called, JavaScript looks once a turn until there is no news.
//! * **Shared memory.** None, but for what a blob is read into: JavaScript's own memory, which the facade hands out
//!   only when the read is over (see `staging`). So nothing JavaScript does to a buffer can reach the kernel.
//! * **The end.** Every log and store is closed and its threads joined before its environment is gone, however it ends.
//!
//! | module | what |
//! | --- | --- |
//! | `wal` | the log's functions: open, submit, poll, close |
//! | `blob` | the blob store's functions |
//! | `store` | an open store with what JavaScript has yet to hear of it |
//! | `staging` | JavaScript's memory, lent to the kernel: the one room with unsafe code |
//! | `backend` | what a service may be run by |
//! | `reader` | records on their way to JavaScript, from the thread pool |
//! | `verify` | checking a whole log, on the thread pool too |
//! | `completion` | the one road back |
//! | `lifecycle` | what is open in this environment, and how it ends |
//! | `error` | core's errors as plain objects |
//! | `guard` | no panic crosses |

#![expect(
    unreachable_pub,
    missing_debug_implementations,
    reason = "what `#[napi]` exports is public to JavaScript; no crate imports this one"
)]
// Not `expect`: the compiler takes what is expected to be dead for alive, and then misses it.
#![cfg_attr(
    test,
    allow(dead_code, reason = "`#[napi]` registers nothing in a test, so nobody calls it there")
)]

mod backend;
mod blob;
mod completion;
mod error;
mod guard;
mod lifecycle;
mod reader;
mod staging;
mod store;
mod verify;
mod wal;
