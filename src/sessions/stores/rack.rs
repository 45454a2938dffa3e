//! redis-rack: a hash, as Ruby's Marshal writes it, or as JSON where so configured. No times stand in it.

use super::datum::{Datum, json_members};
use crate::sessions::facts::{Times, Unreadable};

pub(super) fn read(value: &[u8]) -> Result<Times, Unreadable> {
    match value {
        // Marshal 4.8: a hash, one with a default, one of a class of its own, an object (Ruby's `doc/marshal.rdoc`).
        [4, 8, b'{' | b'}' | b'C' | b'o', _, ..] => Ok(Times::default()),
        [4, 8, _, _, ..] => Err(Unreadable::NotASession),
        [4, ..] => Err(Unreadable::Format),
        _ => json_members::<Datum, 0>(value, []).map(|[]| Times::default()),
    }
}
