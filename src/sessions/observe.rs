//! What a sweep tells of each key as it goes: to the counters of a run, and to the report.

use super::decide::Decision;
use super::facts::{Expiry, KeyFacts};

/// A key as SCAN gave it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The number of its database.
    pub db: u32,
    /// Its name. A login token, more often than not: mask it.
    pub key: &'a [u8],
    /// The first rule that takes it, by its place in the configuration.
    pub rule: Option<usize>,
    /// When the server removes it; `None` where that was not asked: of a key that no rule takes, in a sweep
    /// that is not a report.
    pub expiry: Option<Expiry>,
}

/// What an observer would like to know of a key, beyond what the decision needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The bytes that it takes, by MEMORY USAGE.
    pub bytes: bool,
    /// Its value: of a key that a rule takes its times, of another its bytes.
    pub value: bool,
}

/// What became of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to be done.
    Nothing,
    /// It would be done, but this run writes nothing.
    Would,
    /// Done.
    Done,
    /// The key had changed since it was looked at: left for the next run.
    Changed,
    /// The key was gone.
    Gone,
}

/// A key, and what was decided and done.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The key.
    pub found: Found<'a>,
    /// The server's time when it was looked at: Unix, in milliseconds.
    pub now_ms: i64,
    /// What is known of it; `None` where no rule takes it.
    pub facts: Option<KeyFacts>,
    /// The decision; `None` where no rule takes it.
    pub decision: Option<Decision>,
    /// What became of the decision.
    pub outcome: Outcome,
    /// The bytes that it takes, where they were wished for and could be had.
    pub bytes: Option<u64>,
    /// The value of a key that no rule takes, where it was wished for: of a string at most its first 64 KiB,
    /// of others nothing.
    pub raw: Option<&'a [u8]>,
}

/// Who watches a sweep. Both are called for every key that SCAN gives, `wish` first; a key that was gone
/// when it was looked at is not shown.
pub trait Observer: Send {
    /// What should be asked about this key.
    fn wish(&mut self, found: &Found<'_>) -> Wish {
        let _ = found;
        Wish::default()
    }

    /// What came of it.
    fn seen(&mut self, seen: &Seen<'_>);

    /// The database that is being walked is begun again, from its first key: what was told of it will be told again,
    /// but for what was done.
    fn begun_again(&mut self, db: u32);
}
