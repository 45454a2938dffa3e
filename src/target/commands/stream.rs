//! Commands that make a stream: its entries, its history, its groups, and what is pending in them.

use super::{BATCH_ARGUMENTS, Writer};
use crate::rdb::value::{Element, Pending, StreamFacts, StreamHistory, StreamId};

/// What is known of a stream on the way.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Pending entries that are not in the stream: put there for a moment.
    ghosts: Vec<StreamId>,
    /// How many of them have been put there.
    placed: usize,
    /// How many of them come before the first entry.
    before: usize,
    /// Entries written.
    entries: u64,
    group: Vec<u8>,
    consumer: Vec<u8>,
    /// Pending entries of the consumer that were delivered at one time and equally often.
    claims: Vec<StreamId>,
    claimed: (i64, u64),
    /// What it knows of itself, where that can't be said while ghosts are in it.
    again: Option<(StreamId, StreamHistory)>,
}

impl State {
    pub(super) fn start(&mut self, ghosts: &[StreamId]) {
        self.ghosts.clear();
        self.ghosts.extend_from_slice(ghosts);
        self.placed = 0;
        self.before = 0;
        self.entries = 0;
        self.claims.clear();
        self.again = None;
    }
}

impl Writer {
    pub(super) fn stream_element<E>(
        &mut self,
        element: Element<'_>,
        sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>,
    ) -> Result<(), E> {
        match element {
            Element::Entry(entry) => {
                self.place(Some(entry.id), sink)?;
                let fits = entry
                    .fields
                    .iter()
                    .all(|(field, value)| self.fits(&[field, value]));
                if !fits {
                    self.made.lost.too_large += 1;
                    return Ok(());
                }
                let id = entry.id.to_string();
                let mut command: Vec<&[u8]> = vec![b"XADD", &self.key, id.as_bytes()];
                command.extend(
                    entry
                        .fields
                        .iter()
                        .flat_map(|(field, value)| [field, value]),
                );
                self.stream.entries += 1;
                self.made.commands += 1;
                sink(&command)
            }
            Element::Stream(facts) => self.facts(facts, sink),
            Element::Group(group) => {
                self.stream.group.clear();
                self.stream.group.extend_from_slice(group.name);
                let last = group.last_id.to_string();
                let read = group
                    .entries_read
                    .filter(|_| self.dialect.stream_history)
                    .map(|read| read.to_string());
                let mut command: Vec<&[u8]> =
                    vec![b"XGROUP", b"CREATE", &self.key, group.name, last.as_bytes()];
                if let Some(read) = &read {
                    command.extend([&b"ENTRIESREAD"[..], read.as_bytes()]);
                }
                self.made.commands += 1;
                sink(&command)
            }
            Element::Consumer(consumer) => {
                self.claim(sink)?;
                self.stream.consumer.clear();
                self.stream.consumer.extend_from_slice(consumer.name);
                self.made.commands += 1;
                let (key, group) = (&self.key, &self.stream.group);
                match self.dialect.create_consumer {
                    true => sink(&[b"XGROUP", b"CREATECONSUMER", key, group, consumer.name]),
                    // Asking for what it has pending, which is nothing yet, makes it and gives it nothing.
                    false => sink(&[
                        b"XREADGROUP",
                        b"GROUP",
                        group,
                        consumer.name,
                        b"COUNT",
                        b"1",
                        b"STREAMS",
                        key,
                        b"0",
                    ]),
                }
            }
            Element::Owned(pending) => self.owned(pending, sink),
            Element::Unowned(_) => {
                self.made.lost.unowned += 1;
                Ok(())
            }
            Element::GroupEnd => self.claim(sink),
            _ => Ok(()),
        }
    }

    /// Takes out what was only put there to be claimed.
    pub(super) fn stream_end<E>(
        &mut self,
        sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.claim(sink)?;
        let State {
            ghosts,
            before,
            entries,
            ..
        } = &self.stream;
        let (first, others) = ghosts.split_at(*before);
        if !first.is_empty() {
            // Trimmed away, not deleted: a stream remembers the greatest ID that was deleted.
            let left = (entries + others.len() as u64).to_string();
            self.made.commands += 1;
            sink(&[b"XTRIM", &self.key, b"MAXLEN", left.as_bytes()])?;
        }
        for some in others.chunks(BATCH_ARGUMENTS) {
            let ids: Vec<String> = some.iter().map(StreamId::to_string).collect();
            let mut command: Vec<&[u8]> = vec![b"XDEL", &self.key];
            command.extend(ids.iter().map(String::as_bytes));
            self.made.commands += 1;
            sink(&command)?;
        }
        if let Some((last, history)) = self.stream.again.take() {
            self.set_id(last, Some(history), sink)?;
        }
        self.stream.start(&[]);
        Ok(())
    }

    /// Puts the ghosts there that come before `until`.
    fn place<E>(
        &mut self,
        until: Option<StreamId>,
        sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(ghost) = self.stream.ghosts.get(self.stream.placed).copied() {
            if until.is_some_and(|until| ghost >= until) {
                break;
            }
            self.stream.placed += 1;
            if self.stream.entries == 0 {
                self.stream.before = self.stream.placed;
            }
            let id = ghost.to_string();
            self.made.commands += 1;
            sink(&[b"XADD", &self.key, id.as_bytes(), b"", b""])?;
        }
        Ok(())
    }

    /// After the last entry: what the stream knows of itself.
    fn facts<E>(
        &mut self,
        facts: StreamFacts,
        sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.place(None, sink)?;
        let key = &self.key;
        if self.stream.entries == 0 && self.stream.placed == 0 {
            // A group can make an empty stream, and leave it behind.
            self.made.commands += 2;
            sink(&[b"XGROUP", b"CREATE", key, b"rdbkeeper", b"0-0", b"MKSTREAM"])?;
            sink(&[b"XGROUP", b"DESTROY", key, b"rdbkeeper"])?;
        }
        if facts.last_id == StreamId::default() {
            // Nothing was ever in it.
            return Ok(());
        }
        if !self.dialect.stream_history {
            return self.set_id(facts.last_id, None, sink);
        }
        let mut history = facts.since_7.unwrap_or(StreamHistory {
            entries_added: self.stream.entries,
            ..StreamHistory::default()
        });
        let there = self.stream.entries + self.stream.placed as u64;
        if history.entries_added < there {
            // No stream takes a count that is less than what is in it.
            self.stream.again = Some((facts.last_id, history));
            history.entries_added = there;
        }
        self.set_id(facts.last_id, Some(history), sink)
    }

    fn set_id<E>(
        &mut self,
        last: StreamId,
        history: Option<StreamHistory>,
        sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>,
    ) -> Result<(), E> {
        let last = last.to_string();
        self.made.commands += 1;
        let Some(history) = history else {
            return sink(&[b"XSETID", &self.key, last.as_bytes()]);
        };
        let added = history.entries_added.to_string();
        let deleted = history.max_deleted_id.to_string();
        sink(&[
            b"XSETID",
            &self.key,
            last.as_bytes(),
            b"ENTRIESADDED",
            added.as_bytes(),
            b"MAXDELETEDID",
            deleted.as_bytes(),
        ])
    }

    fn owned<E>(
        &mut self,
        pending: Pending,
        sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>,
    ) -> Result<(), E> {
        let kind = (pending.delivered_ms, pending.deliveries);
        if self.stream.claimed != kind || self.stream.claims.len() >= BATCH_ARGUMENTS {
            self.claim(sink)?;
            self.stream.claimed = kind;
        }
        self.stream.claims.push(pending.id);
        Ok(())
    }

    fn claim<E>(&mut self, sink: &mut impl FnMut(&[&[u8]]) -> Result<(), E>) -> Result<(), E> {
        if self.stream.claims.is_empty() {
            return Ok(());
        }
        let State {
            group,
            consumer,
            claims,
            claimed: (at, count),
            ..
        } = &self.stream;
        let ids: Vec<String> = claims.iter().map(StreamId::to_string).collect();
        let (at, count) = (at.to_string(), count.to_string());
        let mut command: Vec<&[u8]> = vec![b"XCLAIM", &self.key, group, consumer, b"0"];
        command.extend(ids.iter().map(String::as_bytes));
        command.extend([&b"TIME"[..], at.as_bytes()]);
        command.extend([&b"RETRYCOUNT"[..], count.as_bytes()]);
        command.extend([&b"FORCE"[..], b"JUSTID"]);
        self.made.commands += 1;
        sink(&command)?;
        self.stream.claims.clear();
        Ok(())
    }
}
