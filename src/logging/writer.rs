//! The thread that writes the lines.

use crate::logging::queue::Queue;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A stderr that is not blocking and full is tried again after this.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// The shortest pause between two announcements of dropped lines.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);

/// Writes what the queue gets, until the process ends.
pub(super) fn start(queue: Arc<Queue>) -> io::Result<()> {
    // Not `io::stderr()`, whose lock would make everybody wait who writes there while this thread is stuck.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let mut writer = Writer { out: stderr, queue, broken_line: false, works: true, announced: 0, announced_at: None };
    std::thread::Builder::new().name("log".into()).spawn(move || {
        loop {
            writer.write_waiting();
            writer.announce();
        }
    })?;
    Ok(())
}

struct Writer<W> {
    out: W,
    queue: Arc<Queue>,
    /// The last line is only partly written.
    broken_line: bool,
    /// The last line was written.
    works: bool,
    /// Dropped lines that were announced.
    announced: u64,
    announced_at: Option<Instant>,
}

impl<W: Write> Writer<W> {
    /// Waits for lines and writes them; one that cannot be written is dropped.
    fn write_waiting(&mut self) {
        let lines = self.queue.take();
        // Now the queue has room, which it may not have when these lines are written.
        self.announce();
        for line in lines {
            self.works = self.write_line(&line).is_ok();
            self.queue.note_dropped(u64::from(!self.works));
        }
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.broken_line {
            self.write_all(b"\n")?;
        }
        self.broken_line = false;
        self.write_all(line)
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.out.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    self.broken_line = !bytes.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(FULL_PAUSE),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Says how many lines were dropped since it last did, once stderr takes lines and the queue has room for this one.
    fn announce(&mut self) {
        let dropped = self.queue.dropped();
        let is_due = self.announced_at.is_none_or(|at| at.elapsed() >= ANNOUNCE_EVERY);
        if dropped > self.announced && is_due && self.works && self.queue.has_room() {
            tracing::warn!(lines = dropped - self.announced, "log lines were lost: stderr did not take them");
            self.announced = dropped;
            self.announced_at = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then answers with errors.
    struct Disk {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            self.taken.extend_from_slice(&bytes[..taken]);
            if taken == 0 { Err(ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_counted_and_the_next_line_is_whole() {
        let queue = Arc::new(Queue::default());
        let out = Disk { room: 5, taken: Vec::new() };
        let mut writer =
            Writer { out, queue: queue.clone(), broken_line: false, works: true, announced: 0, announced_at: None };
        for line in ["one\n", "two\n", "three\n"] {
            queue.push(line.as_bytes());
        }
        writer.write_waiting();
        assert_eq!((writer.works, queue.dropped()), (false, 2));
        writer.out.room = 100;
        queue.push(b"four\n");
        writer.write_waiting();
        assert!(writer.works);
        assert_eq!(writer.out.taken, b"one\nt\nfour\n");
    }
}
