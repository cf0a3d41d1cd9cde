//! An open store with what its JavaScript thread has yet to hear of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::BufferSlice;
use ringbolt_core::Result;
use ringbolt_core::blob::{Answer, BlobRequest, Finished, Request, State, Store};

use crate::blob::NativeBlobAnswer;
use crate::error::{NativeFailure, number};
use crate::staging::{Lent, Loans, lend};

/// Set in an id of which there is more to tell than that it is done.
const IS_RICH: u32 = 1 << 31;

/// A store, as its JavaScript thread has it.
pub(crate) struct OpenStore {
    // Dropped first, which waits for all that is under way: then nothing that the references keep is lent any more.
    store: Store,
    loans: Arc<Loans>,
    /// By id, what is lent to the call of that id.
    lent: RefCell<Vec<Option<Lent>>>,
    /// Taken from core and not yet by JavaScript.
    finished: RefCell<VecDeque<Finished>>,
    /// Of ids that were told, what `take_answer` is still to tell.
    answers: RefCell<BTreeMap<u32, Result<Answer>>>,
}

impl OpenStore {
    pub(crate) fn new(store: Store, loans: Arc<Loans>) -> Self {
        Self {
            store,
            loans,
            lent: RefCell::default(),
            finished: RefCell::default(),
            answers: RefCell::default(),
        }
    }

    pub(crate) fn core(&self) -> &Store {
        &self.store
    }

    pub(crate) fn close(&self) {
        self.store.close();
    }

    /// A request to fill `into`, which is lent to it until the answer under `id` is taken.
    pub(crate) fn reading(
        &self,
        env: Env,
        id: u32,
        blob: u32,
        offset: u64,
        into: &mut BufferSlice<'_>,
        cached: bool,
    ) -> napi::Result<Request> {
        let (buffer, lent_to_it) = lend(env, into, &self.loans)?;
        let mut lent = self.lent.borrow_mut();
        if lent.len() <= id as usize {
            lent.resize_with(id as usize + 1, || None);
        }
        assert!(lent[id as usize].is_none(), "an id is used once at a time");
        lent[id as usize] = Some(lent_to_it);
        Ok(Request::Blob { blob, work: BlobRequest::Read { offset, buffer, cached } })
    }

    /// See `blob::take_finished`.
    pub(crate) fn take_finished(&self, words: &mut [[u8; 4]]) -> u32 {
        let Some((first, places)) = words.split_first_mut() else { return 0 };
        // Before the answers: a store that is closed has given its last, so the last are among those taken below.
        let state = match self.store.state() {
            State::Opening => 0_u32,
            State::Open { .. } => 1,
            State::Failed(_) => 2,
            State::Closed => 3,
        };
        *first = state.to_ne_bytes();
        let mut finished = self.finished.borrow_mut();
        if finished.is_empty() {
            let mut taken = Vec::from(std::mem::take(&mut *finished));
            self.store.take(&mut taken);
            *finished = taken.into();
        }
        let count = finished.len().min(places.len());
        for (place, Finished { id, result }) in places.iter_mut().zip(finished.drain(..count)) {
            *place = self.told(id, result).to_ne_bytes();
        }
        count as u32
    }

    /// What JavaScript hears of an answer first.
    fn told(&self, id: u32, result: Result<Answer>) -> u32 {
        if let Some(lent) = self.lent.borrow_mut().get_mut(id as usize) {
            *lent = None;
        }
        if matches!(result, Ok(Answer::Done)) {
            return id;
        }
        self.answers.borrow_mut().insert(id, result);
        id | IS_RICH
    }

    pub(crate) fn take_answer(&self, id: u32) -> NativeBlobAnswer {
        let mut answers = self.answers.borrow_mut();
        let mut native = NativeBlobAnswer::default();
        match answers.remove(&id).expect("the facade asks for an answer it was told of") {
            Ok(Answer::Done | Answer::Read(_)) => {}
            Ok(Answer::Opened { blob, version }) => {
                native.blob = Some(blob);
                native.version = Some(version.into());
            }
            Ok(Answer::Partitions(partitions)) => native.partitions = Some(partitions),
            Ok(Answer::Names(names)) => {
                let bytes: usize = names.iter().map(|name| 1 + name.len()).sum();
                native.names_bytes = Some(number(bytes as u64));
                answers.insert(id, Ok(Answer::Names(names)));
            }
            Err(error) => native.failure = Some(NativeFailure::from(&error)),
        }
        native
    }

    pub(crate) fn take_names(&self, id: u32, mut into: &mut [u8]) {
        let Some(Ok(Answer::Names(names))) = self.answers.borrow_mut().remove(&id) else {
            unreachable!("the facade asks for names it was told of")
        };
        for name in names {
            let length = u8::try_from(name.len()).expect("a name is a file's, in hexadecimal");
            let (place, rest) = std::mem::take(&mut into).split_at_mut(1 + name.len());
            place[0] = length;
            place[1..].copy_from_slice(&name);
            into = rest;
        }
    }
}
