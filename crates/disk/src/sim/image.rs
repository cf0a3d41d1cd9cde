//! A machine at the moment of a power cut.

use std::fmt;

use super::Sim;
use super::world::World;

/// A machine at the moment of a power cut. What of the undecided is on disk is decided when it boots.
#[derive(Clone)]
pub struct Image {
    /// What [`Sim::set_marker`] had said.
    pub marker: u64,
    /// The step at which it was captured.
    pub step: u64,
    world: World,
}

impl Image {
    pub(super) fn new(world: World) -> Self {
        Self { marker: world.marker, step: world.steps, world }
    }

    /// The machine after the power came back. Another seed decides otherwise about what was pending. Steps
    /// count from 0; lies, capacity and marker are kept, faults are not.
    pub fn boot(&self, seed: u64) -> Sim {
        let mut world = self.world.clone();
        world.cut_power(seed, None);
        Sim::over(world)
    }

    /// What is undecided, as units that a test may enumerate: each write, executed or in flight, each change
    /// of a length and of a name. Zeroing is left out, and lost unless something else decides.
    pub fn undecided(&self) -> Vec<u64> {
        self.world.clone().undecided().into_iter().collect()
    }

    /// As [`Image::boot`], but exactly the `kept` of [`Image::undecided`] persisted, each as a whole, in the
    /// order they were made. `seed` decides what the machine does from then on.
    pub fn boot_with(&self, kept: impl IntoIterator<Item = u64>, seed: u64) -> Sim {
        let mut world = self.world.clone();
        world.cut_power(seed, Some(&kept.into_iter().collect()));
        Sim::over(world)
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image(step {}, marker {})", self.step, self.marker)
    }
}
