//! Walks a pickle of protocol 0 to 5 without running it, and finds the plain values of its top dictionary.
//!
//! A pickle is a program: unpickling one calls whatever it names. Nothing is called here. What a call would
//! give is an opaque value; only the few that make a `datetime` are understood, from their arguments.
//!
//! Values live in one arena and are spoken of by index, so that a memo or `DUP` copies four bytes however
//! large the value is, and texts are ranges of the input. There is no recursion, and of nothing are more than [`MOST`]
//! kept: a byte of a pickle can make a value of many. What has more is not walked to its end.
//! The trap: a session's own data may have keys that are named like the envelope's. What counts is the
//! dictionary that stands at the top at the end, and the last value that it got for a key.

mod calls;
mod walker;

use self::calls::Callable;
use self::walker::Walker;
use super::datum::Moment;

/// The most values that are kept of a pickle; so many may stand on the stack, in the memo and in dictionaries,
/// and so many marks be set. All of it comes to 16 MiB.
const MOST: usize = 1 << 18;

/// Why bytes are no pickle that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// They are no pickle.
    #[error("at byte {at}: {what}")]
    At {
        /// Where.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// It has more than is kept.
    #[error("more than {MOST} values")]
    TooMany,
}

/// A value of the top dictionary.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plain<'a> {
    /// `None`.
    None,
    /// A whole number that fits in 64 bits.
    Int(i64),
    /// A floating point number.
    Float(f64),
    /// Text, or bytes: Python 2 wrote both alike. Escapes are left as they are.
    Text(&'a [u8]),
    /// A dictionary.
    Dict,
    /// A `datetime.datetime`.
    Moment(Moment),
    /// Anything else.
    Other,
}

type Index = u32;

#[derive(Clone, Copy)]
enum Node {
    None,
    Int(i64),
    Float(f64),
    Text {
        from: u32,
        to: u32,
    },
    Dict,
    /// Its first three values.
    Tuple([Option<Index>; 3]),
    Callable(Callable),
    /// A `timedelta`, or what a time zone adds to UTC, in microseconds.
    Delta(i64),
    Zone(i64),
    Moment(Moment),
    Opaque,
}

/// One `dictionary[key] = value`.
struct Entry {
    dict: Index,
    key: Index,
    value: Index,
}

/// A pickle that was walked to its end.
pub(super) struct Pickle<'a> {
    input: &'a [u8],
    nodes: Vec<Node>,
    entries: Vec<Entry>,
    top: Index,
}

impl<'a> Pickle<'a> {
    /// Walks a pickle; nothing may follow it.
    ///
    /// # Errors
    /// Where and why it is none.
    pub(super) fn walk(input: &'a [u8]) -> Result<Pickle<'a>, Broken> {
        if u32::try_from(input.len()).is_err() {
            return Err(Broken::At {
                at: 0,
                what: "longer than 4 GiB",
            });
        }
        let mut walker = Walker::new(input);
        let top = walker.walk()?;
        let (nodes, entries) = walker.finish();
        Ok(Pickle {
            input,
            nodes,
            entries,
            top,
        })
    }

    /// Whether the value is a plain dictionary.
    pub(super) fn is_dict(&self) -> bool {
        matches!(self.node(self.top), Node::Dict)
    }

    /// The value that the top dictionary has for a key.
    pub(super) fn get(&self, name: &str) -> Option<Plain<'a>> {
        let named = |entry: &&Entry| {
            entry.dict == self.top
                && matches!(self.node(entry.key), Node::Text { from, to }
                    if self.text(from, to) == name.as_bytes())
        };
        let entry = self.entries.iter().rev().find(named)?;
        Some(match self.node(entry.value) {
            Node::None => Plain::None,
            Node::Int(number) => Plain::Int(number),
            Node::Float(number) => Plain::Float(number),
            Node::Text { from, to } => Plain::Text(self.text(from, to)),
            Node::Dict => Plain::Dict,
            Node::Moment(moment) => Plain::Moment(moment),
            _ => Plain::Other,
        })
    }

    fn node(&self, index: Index) -> Node {
        self.nodes[index as usize]
    }

    fn text(&self, from: u32, to: u32) -> &'a [u8] {
        &self.input[from as usize..to as usize]
    }
}
