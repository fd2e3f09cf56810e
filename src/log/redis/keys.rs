//! Keys and channels of one line of the log. All start with the prefix, and all but the dead letters are in the slot of the
//! line's stream, so that one command may use several.

use crate::model::offset::{Epoch, Position};
use crate::model::partition::Line;

/// See the module.
pub(super) struct Keys {
    /// The stream: `{prefix}:events`, or `{prefix}:events:{3}` of the third partition, whose braces are part of the key:
    /// a Redis Cluster spreads the streams by the numbers in them.
    pub(super) events: String,
    pub(super) epoch: String,
    /// Copies of malformed entries, of all lines.
    pub(super) dead: String,
    /// The channel of volatile events.
    pub(super) volatile: String,
    /// How many partitions the log has. Of the control line.
    pub(super) layout: String,
    /// Prefix of keys in the stream's slot of a Cluster.
    pub(super) tagged: String,
}

impl Keys {
    pub(super) fn new(prefix: &str, line: Line) -> Self {
        let control = format!("{prefix}:events");
        let (events, tagged, volatile) = match line {
            Line::CONTROL => (control.clone(), format!("{prefix}:{{{control}}}"), format!("{prefix}:volatile")),
            partition => {
                let events = format!("{control}:{{{partition}}}");
                (events.clone(), events, format!("{prefix}:volatile:{{{partition}}}"))
            }
        };
        Self {
            epoch: format!("{tagged}:epoch"),
            layout: format!("{tagged}:partitions"),
            dead: format!("{prefix}:dead"),
            volatile,
            events,
            tagged,
        }
    }

    /// The key of an idempotency id.
    pub(super) fn id(&self, id: &str) -> String {
        format!("{}:id:{id}", self.tagged)
    }

    /// The lease of the node that copies what emitters publish.
    pub(super) fn emitter_lease(&self) -> String {
        format!("{}:emitters", self.tagged)
    }

    /// How far that node has read an emitters' stream.
    pub(super) fn emitter_position(&self, stream: &str) -> String {
        format!("{}:emitters:{stream}", self.tagged)
    }

    /// Where the stream of this epoch goes when it is renewed.
    pub(super) fn retired(&self, epoch: Epoch) -> String {
        format!("{}:retired:{:x}", self.tagged, epoch.0)
    }

    /// The mark of a renewal of the stream a moment ago.
    pub(super) fn renewal(&self) -> String {
        format!("{}:renewal", self.tagged)
    }

    /// The key that says which node reports a malformed entry.
    pub(super) fn claim(&self, position: Position) -> String {
        format!("{}:dead:{position}", self.tagged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_line_are_in_the_slot_of_its_stream() {
        let control = Keys::new("roomcast", Line::CONTROL);
        assert_eq!(control.id("x"), "roomcast:{roomcast:events}:id:x");
        let partition = Keys::new("roomcast", Line::new(3).unwrap());
        assert_eq!(partition.events, "roomcast:events:{3}");
        assert_eq!(partition.id("x"), "roomcast:events:{3}:id:x");
        assert_eq!(partition.volatile, "roomcast:volatile:{3}");
    }
}
