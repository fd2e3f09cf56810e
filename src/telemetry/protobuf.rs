//! The wire format of Protocol Buffers, as far as OTLP needs it: writing messages. Sans-IO.

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

/// A message that is being written. Fields with the default value are left out, as encoders do.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn varint(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint_always(field, value);
        }
    }

    /// A number that is one of several alternatives: zero is written too.
    pub(super) fn varint_always(&mut self, field: u32, value: u64) {
        self.tag(field, VARINT);
        self.raw_varint(value);
    }

    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.tag(field, FIXED64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        if value != 0 {
            self.tag(field, FIXED32);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// A number that is one of several alternatives, or `optional`: zero is written too.
    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.tag(field, FIXED64);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.bytes_always(field, value);
        }
    }

    /// Bytes or text that are one of several alternatives: an empty one is written too.
    pub(super) fn bytes_always(&mut self, field: u32, value: &[u8]) {
        self.tag(field, BYTES);
        self.raw_varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A list of numbers of eight bytes.
    pub(super) fn packed(&mut self, field: u32, values: impl Iterator<Item = [u8; 8]>) {
        self.bytes(field, &values.flatten().collect::<Vec<u8>>());
    }

    /// An inner message, also an empty one.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.bytes_always(field, &inner.0);
    }

    fn tag(&mut self, field: u32, kind: u32) {
        self.raw_varint(u64::from(field << 3 | kind));
    }

    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_specification() {
        // https://protobuf.dev/programming-guides/encoding: `a = 150`, `b = "testing"`, and a message that holds the first.
        let written = |write: fn(&mut Message)| {
            let mut message = Message::default();
            write(&mut message);
            message.into_bytes()
        };
        assert_eq!(written(|m| m.varint(1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(written(|m| m.bytes(2, b"testing")), *b"\x12\x07testing");
        assert_eq!(written(|m| m.message(3, |m| m.varint(1, 150))), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(written(|m| m.fixed64(7, 1)), [0x39, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(|m| m.double(4, 0.0)), [0x21, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written(|m| m.fixed32(16, 1)), [0x85, 0x01, 1, 0, 0, 0]);
        assert_eq!(written(|m| m.packed(6, [1u64.to_le_bytes()].into_iter())), [0x32, 8, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert!(written(|m| m.varint(1, 0)).is_empty() && written(|m| m.bytes(1, b"")).is_empty());
    }
}
