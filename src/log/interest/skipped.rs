//! When the rooms that nobody wants had their last event, by a hash of their names: too late where two share a place.

use crate::log::interest::packed_position::PackedPosition;

/// Places of all stripes: one megabyte.
const PLACES: usize = 1 << 17;

/// The part of one stripe.
pub(super) struct Skipped {
    /// Packed positions. Zeros of the system, which take no memory before they are written to.
    places: Box<[u64]>,
    /// Nothing before this is known.
    floor: PackedPosition,
}

impl Skipped {
    /// One of so many, at most [`PLACES`].
    pub(super) fn new(stripes: usize) -> Self {
        Self { places: vec![0; PLACES / stripes].into(), floor: PackedPosition::default() }
    }

    /// An event of a room with this hash is not kept.
    pub(super) fn note(&mut self, hash: u64, at: PackedPosition) {
        let at_place = hash as usize % self.places.len();
        let place = &mut self.places[at_place];
        *place = at.0.max(*place);
    }

    /// No event of a room with this hash was skipped after this.
    pub(super) fn last(&self, hash: u64) -> PackedPosition {
        PackedPosition(self.places[hash as usize % self.places.len()]).max(self.floor)
    }

    /// Nothing before this is known.
    pub(super) fn reset(&mut self, floor: PackedPosition) {
        *self = Self { places: vec![0; self.places.len()].into(), floor };
    }
}
