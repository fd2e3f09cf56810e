//! Commands as RESP, written where they will be sent from. Sans-IO.

use redis::Cmd;

/// Takes the arguments of a command one after the other, its name first.
pub(crate) trait Arguments {
    fn push(&mut self, argument: &[u8]);

    fn text(&mut self, text: &str) {
        self.push(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        let mut digits = Digits::default();
        self.push(digits.of(number));
    }
}

impl Arguments for Cmd {
    fn push(&mut self, argument: &[u8]) {
        self.arg(argument);
    }
}

/// Bytes of `*00\r\n`.
const HEADER: usize = 5;

/// Appends one command to a buffer.
pub(crate) struct CommandWriter<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    arguments: usize,
}

impl<'a> CommandWriter<'a> {
    pub(crate) fn new(buffer: &'a mut Vec<u8>) -> Self {
        let start = buffer.len();
        // The number is known at the end, and mostly has two digits.
        buffer.extend_from_slice(b"*00\r\n");
        Self { buffer, start, arguments: 0 }
    }

    /// Appends a whole command.
    pub(crate) fn write(buffer: &'a mut Vec<u8>, words: &[&str]) {
        let mut command = Self::new(buffer);
        words.iter().for_each(|word| command.text(word));
        command.finish();
    }

    /// Completes the command.
    pub(crate) fn finish(self) {
        let header = &mut self.buffer[self.start..self.start + HEADER];
        if let 10..=99 = self.arguments {
            header[1] = b'0' + (self.arguments / 10) as u8;
            header[2] = b'0' + (self.arguments % 10) as u8;
            return;
        }
        let exact = format!("*{}\r\n", self.arguments);
        self.buffer.splice(self.start..self.start + HEADER, exact.into_bytes());
    }
}

impl Arguments for CommandWriter<'_> {
    fn push(&mut self, argument: &[u8]) {
        let mut digits = Digits::default();
        self.buffer.push(b'$');
        self.buffer.extend_from_slice(digits.of(argument.len() as u64));
        self.buffer.extend_from_slice(b"\r\n");
        self.buffer.extend_from_slice(argument);
        self.buffer.extend_from_slice(b"\r\n");
        self.arguments += 1;
    }
}

/// The decimal text of a number, without the machinery of formatting.
#[derive(Default)]
struct Digits([u8; 20]);

impl Digits {
    fn of(&mut self, mut number: u64) -> &[u8] {
        let mut at = self.0.len();
        loop {
            at -= 1;
            self.0[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &self.0[at..];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_the_client_library_writes_them() {
        let mut buffer = Vec::new();
        let mut expected = Vec::new();
        for count in [1, 9, 10, 42, 99, 100, 1234] {
            let mut library = redis::cmd("XADD");
            let mut ours = CommandWriter::new(&mut buffer);
            ours.text("XADD");
            for n in 1..count {
                library.arg(n * 7919).arg("").arg("é\r\n".repeat(n));
                ours.number(n as u64 * 7919);
                ours.text("");
                ours.text(&"é\r\n".repeat(n));
            }
            ours.finish();
            expected.extend(library.get_packed_command());
            assert!(buffer == expected, "{count}");
        }
        assert_eq!(Digits::default().of(u64::MAX), u64::MAX.to_string().as_bytes());
        assert_eq!(Digits::default().of(0), b"0");
    }
}
