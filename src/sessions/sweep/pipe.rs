//! One connection on which the answers of what is asked ahead and of what is asked now do not get mixed up.

use std::collections::VecDeque;

use crate::server::{Error, Reply, Wire};

/// A connection: questions asked ahead are answered in order by [`Pipe::next`], also when others were asked between.
#[derive(Debug)]
pub(super) struct Pipe {
    wire: Wire,
    /// Answers that were read before anybody wanted them.
    early: VecDeque<Reply>,
    /// Answers that are on their way.
    due: usize,
}

impl Pipe {
    pub(super) fn new(wire: Wire) -> Pipe {
        Pipe {
            wire,
            early: VecDeque::new(),
            due: 0,
        }
    }

    /// Asks ahead; sent by [`Pipe::flush`].
    pub(super) fn ask(&mut self, args: &[&[u8]]) {
        self.wire.queue(args);
        self.due += 1;
    }

    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        self.wire.flush().await
    }

    /// The next answer to what was asked ahead.
    pub(super) async fn next(&mut self) -> Result<Reply, Error> {
        if let Some(reply) = self.early.pop_front() {
            return Ok(reply);
        }
        let reply = self.wire.reply().await?;
        self.due = self.due.saturating_sub(1);
        Ok(reply)
    }

    /// The connection, for questions whose answers are read before anything else is asked: what was asked ahead
    /// is answered first, and kept.
    pub(super) async fn now(&mut self) -> Result<&mut Wire, Error> {
        self.wire.flush().await?;
        while self.due > 0 {
            let reply = self.wire.reply().await?;
            self.early.push_back(reply);
            self.due -= 1;
        }
        Ok(&mut self.wire)
    }
}
