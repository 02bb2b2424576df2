//! Ends of acquisitions, for whoever watches: a short list that its writer never waits for.

use super::Completeness;
use crate::model::AcqId;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Ends that are kept until somebody takes them; the oldest is forgotten first.
const KEPT_MAX: usize = 256;

/// An acquisition was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Which.
    pub acq: AcqId,
    /// How complete it was.
    pub completeness: Completeness,
}

/// Ends that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Endings(Mutex<VecDeque<Ending>>);

impl Endings {
    /// Takes notice of an end.
    pub fn push(&self, ending: Ending) {
        let mut endings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if endings.len() >= KEPT_MAX {
            endings.pop_front();
        }
        endings.push_back(ending);
    }

    /// All that came since the last time, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Ending> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}
