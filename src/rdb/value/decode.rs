//! From a value's bytes to its elements.

use super::super::error::Damage;
use super::super::types::ValueType;
use super::{Element, ValueError};

/// A value that can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value is damaged near byte {at}: {fault}")]
pub struct DecodeError {
    /// Where in the value, in bytes from its beginning; a packed node is told by where it begins.
    pub at: u64,
    /// What.
    pub fault: Fault,
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A rule of the file format is broken.
    #[error(transparent)]
    Format(#[from] Damage),
    /// It ends too early.
    #[error("it ends too early")]
    Cut,
    /// Something follows its end.
    #[error("something follows its end")]
    Trailing,
}

/// Decodes values, one after the other. See the [module](super).
#[derive(Debug)]
pub struct Decoder {
    value_type: Option<ValueType>,
}

impl Decoder {
    /// A decoder that waits for [`start`](Decoder::start).
    pub fn new() -> Decoder {
        Decoder { value_type: None }
    }

    /// Begins a value of this type; whatever came before is forgotten.
    pub fn start(&mut self, value_type: ValueType) {
        self.value_type = Some(value_type);
    }

    /// Takes the next fragment of the value's bytes, of any size.
    ///
    /// # Errors
    /// The bytes break a rule, or the sink wants no more; the value can't go on afterwards.
    pub fn push<E>(
        &mut self,
        fragment: &[u8],
        sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
    ) -> Result<(), ValueError<E>> {
        let _ = (fragment, sink);
        todo!()
    }

    /// Ends the value.
    ///
    /// # Errors
    /// It was not whole.
    pub fn finish(&mut self) -> Result<(), DecodeError> {
        todo!()
    }
}

/// Decodes a value that is whole.
///
/// # Errors
/// It is damaged, or the sink wants no more.
pub fn decode<E>(
    value_type: ValueType,
    bytes: &[u8],
    sink: &mut impl FnMut(Element<'_>) -> Result<(), E>,
) -> Result<(), ValueError<E>> {
    let mut decoder = Decoder::new();
    decoder.start(value_type);
    decoder.push(bytes, sink)?;
    Ok(decoder.finish()?)
}
