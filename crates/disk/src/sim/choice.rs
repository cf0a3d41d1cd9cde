//! Who decides what a power cut left of the undecided: chance, or a list.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::SmallRng;

/// Decides between what is stable and the versions that came later.
pub(super) enum Choice<'a> {
    /// Anything may come of it.
    Chance(&'a mut SmallRng),
    /// What happened at these moments was kept, the newest of it is what is found.
    Kept(&'a BTreeSet<u64>),
}

impl Choice<'_> {
    /// How likely a version is to be kept, for a group of things that belong together.
    pub(super) fn odds(&mut self) -> f64 {
        match self {
            Self::Chance(rng) => odds(rng),
            Self::Kept(_) => 1.0,
        }
    }

    /// Which of these versions, oldest first, was kept, if any.
    pub(super) fn version<T>(&mut self, odds: f64, versions: &[(u64, T)]) -> Option<usize> {
        match self {
            Self::Chance(rng) => {
                let is_kept = !versions.is_empty() && rng.random_bool(odds);
                is_kept.then(|| rng.random_range(0..versions.len()))
            }
            Self::Kept(kept) => versions.iter().rposition(|(moment, _)| kept.contains(moment)),
        }
    }
}

/// How likely one of several undecided things is to happen. All or nothing, and nearly so, are worth more
/// runs than an even mix, which a large write would never survive or fall to as a whole.
pub(super) fn odds(rng: &mut SmallRng) -> f64 {
    [0.0, 0.1, 0.5, 0.9, 1.0][rng.random_range(0..5)]
}
