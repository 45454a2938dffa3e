//! What a hook says, line by line into the log: long lines cut, a flood left out with a note.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Instant, timeout_at};

/// A line is cut here, in bytes.
const LONGEST_LINE: usize = 1000;

/// So many lines of one hook are logged.
const MOST_LINES: u64 = 500;

/// So many last lines are told when a hook fails.
const LAST: usize = 5;

/// Listens to one hook.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    database: String,
    program: String,
    last: Arc<Mutex<VecDeque<String>>>,
}

impl Listener {
    pub(super) fn new(database: &str, program: &str) -> Listener {
        Listener {
            database: database.to_owned(),
            program: program.to_owned(),
            last: Arc::default(),
        }
    }

    /// The last lines so far.
    pub(super) fn last_lines(&self) -> Vec<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().cloned().collect()
    }

    /// Logs what comes, until nobody can write any more or `deadline` has come.
    pub(super) async fn listen(self, mut pipe: pipe::Receiver, deadline: Instant) {
        let mut lines = Lines::default();
        let mut count = 0;
        let mut buffer = vec![0; 8 << 10];
        while let Ok(Ok(read)) = timeout_at(deadline, pipe.read(&mut buffer)).await {
            if read == 0 {
                break;
            }
            lines.push(&buffer[..read], |line| self.line(line, &mut count));
        }
        lines.finish(|line| self.line(line, &mut count));
        if count > MOST_LINES {
            let more = count - MOST_LINES;
            tracing::warn!(
                database = self.database,
                hook = self.program,
                "… and {more} more lines, which are left out"
            );
        }
    }

    fn line(&self, line: String, count: &mut u64) {
        *count += 1;
        if *count <= MOST_LINES {
            tracing::info!(database = self.database, hook = self.program, "{line}");
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == LAST {
            last.pop_front();
        }
        last.push_back(line);
    }
}

/// Bytes as they come, cut into lines. Holds no more than the longest line.
#[derive(Debug, Default)]
struct Lines {
    line: Vec<u8>,
    cut: bool,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], mut each: impl FnMut(String)) {
        for byte in bytes {
            match byte {
                b'\n' => self.end(&mut each),
                _ if self.line.len() < LONGEST_LINE => self.line.push(*byte),
                _ => self.cut = true,
            }
        }
    }

    /// The last line may have no end.
    fn finish(mut self, mut each: impl FnMut(String)) {
        if !self.line.is_empty() {
            self.end(&mut each);
        }
    }

    fn end(&mut self, each: &mut impl FnMut(String)) {
        let text = String::from_utf8_lossy(&self.line);
        // No control characters: they could play tricks on the terminal that shows the log.
        let shown: String = text
            .trim_end_matches('\r')
            .chars()
            .map(|c| match c {
                '\t' => ' ',
                c if c.is_control() => '\u{fffd}',
                c => c,
            })
            .collect();
        let shown = match self.cut {
            true => format!("{shown}…"),
            false => shown,
        };
        if !shown.trim().is_empty() {
            each(shown);
        }
        self.line.clear();
        self.cut = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece, |line| found.push(line));
        }
        lines.finish(|line| found.push(line));
        found
    }

    #[test]
    fn lines_are_found_wherever_the_pieces_end() {
        assert_eq!(
            lines(&[b"on", b"e\r\ntwo\n\n", b"\x1b[2Jth\xffree"]),
            ["one", "two", "\u{fffd}[2Jth\u{fffd}ree"]
        );
    }

    #[test]
    fn a_line_without_end_is_cut_and_takes_no_memory() {
        let piece = [b'x'; 5000];
        let found = lines(&[&piece, &piece, b"\nnext\n"]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].chars().count(), LONGEST_LINE + 1);
        assert!(found[0].ends_with('…'));
        assert_eq!(found[1], "next");
    }
}
