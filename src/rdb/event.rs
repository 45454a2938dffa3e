//! What a scanner tells of a file.

use super::string::StringRef;
use super::types::{DbIndex, FileVersion, ModuleId, ValueType};

/// One thing in a file, in its order there. The `raw` bytes of all events, one after the other, are
/// the file, byte for byte.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The magic word and the version; always first, but for a file compressed as a whole.
    Header {
        /// What they say.
        version: FileVersion,
        /// The bytes.
        raw: &'a [u8],
    },
    /// A fact about the file or the server; between keys too.
    Aux {
        /// Its name: `redis-ver`, `ctime`, …
        key: StringRef<'a>,
        /// Its value.
        value: StringRef<'a>,
        /// The bytes.
        raw: &'a [u8],
    },
    /// The following keys are of this database.
    SelectDb {
        /// The database.
        db: DbIndex,
        /// The bytes.
        raw: &'a [u8],
    },
    /// How many keys to make room for in this database.
    ResizeDb {
        /// Keys.
        keys: u64,
        /// Keys that expire.
        expires: u64,
        /// The bytes.
        raw: &'a [u8],
    },
    /// A cluster slot's size (Redis 7.4 and later), for the current database.
    SlotInfo {
        /// The bytes.
        raw: &'a [u8],
    },
    /// A slot on its way in (Valkey 9 and later).
    SlotImport {
        /// The bytes.
        raw: &'a [u8],
    },
    /// A function library.
    Function {
        /// Its source, with the `#!` line.
        code: StringRef<'a>,
        /// The bytes.
        raw: &'a [u8],
    },
    /// A function library as Redis 7.0's release candidates wrote it. Released servers refuse it.
    FunctionPreGa {
        /// The bytes.
        raw: &'a [u8],
    },
    /// A module's own data begins; it follows in [`Event::ModuleAuxData`].
    ModuleAux {
        /// Whose.
        module: ModuleId,
        /// The bytes up to the module's ID.
        raw: &'a [u8],
    },
    /// The next fragment of a module's own data.
    ModuleAuxData(&'a [u8]),
    /// The end of a module's own data.
    ModuleAuxEnd,
    /// A key; its value follows in fragments.
    Key(KeyHead<'a>),
    /// The next fragment of the value's bytes, never empty.
    Value(&'a [u8]),
    /// The end of the value.
    ValueEnd,
    /// The end mark, and the checksum where the version has one.
    End {
        /// What the checksum proved. A wrong one is an error instead.
        checksum: Checksum,
        /// The bytes.
        raw: &'a [u8],
    },
    /// From here on nothing is known; the rest follows in [`Event::OpaqueBytes`].
    Opaque {
        /// Where what is not known stands. The expiry and the like of a key of unknown type stand
        /// before it, and come as opaque bytes too.
        offset: u64,
        /// What it is.
        what: Unknown,
    },
    /// The next fragment of what can't be read.
    OpaqueBytes(&'a [u8]),
}

impl<'a> Event<'a> {
    /// The event's bytes in the file; empty for those that only mark a place.
    pub fn raw(&self) -> &'a [u8] {
        match *self {
            Event::Header { raw, .. }
            | Event::Aux { raw, .. }
            | Event::SelectDb { raw, .. }
            | Event::ResizeDb { raw, .. }
            | Event::SlotInfo { raw }
            | Event::SlotImport { raw }
            | Event::Function { raw, .. }
            | Event::FunctionPreGa { raw }
            | Event::ModuleAux { raw, .. }
            | Event::ModuleAuxData(raw)
            | Event::Key(KeyHead { raw, .. })
            | Event::Value(raw)
            | Event::End { raw, .. }
            | Event::OpaqueBytes(raw) => raw,
            Event::ModuleAuxEnd | Event::ValueEnd | Event::Opaque { .. } => &[],
        }
    }
}

/// Everything about a key but its value.
#[derive(Clone, Copy, Debug)]
pub struct KeyHead<'a> {
    /// Its database; 0 in a file that never selected one.
    pub db: DbIndex,
    /// Its type and encoding.
    pub value_type: ValueType,
    /// Its name.
    pub key: StringRef<'a>,
    /// When it expires, in milliseconds of Unix time.
    pub expire_at_ms: Option<i64>,
    /// For how long it had not been used, in seconds, when the file was written (LRU policies).
    pub idle_s: Option<u64>,
    /// How often it is used, a logarithmic counter (LFU policies).
    pub freq: Option<u8>,
    /// Its metadata (opcode 243 of Redis 8.6 and later), the opcode included, as it also stands
    /// before the type byte of a DUMP payload; empty without.
    pub meta: &'a [u8],
    /// The bytes from the first that belongs to the key up to its value.
    pub raw: &'a [u8],
}

/// What the checksum at a file's end proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// It fits.
    Verified,
    /// All zero: the server writes none (`rdbchecksum no`).
    Disabled,
    /// The version has none: before 5.
    Absent,
    /// The file is opaque and has none that could be found.
    Unverifiable,
}

impl Checksum {
    /// A word: `verified`, `disabled`, `absent`, `unverifiable`.
    pub fn as_str(self) -> &'static str {
        match self {
            Checksum::Verified => "verified",
            Checksum::Disabled => "disabled",
            Checksum::Absent => "absent",
            Checksum::Unverifiable => "unverifiable",
        }
    }
}

/// What made a file opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// A type or opcode whose layout is not known.
    #[error("type or opcode {0} is not known")]
    Type(u8),
    /// The whole file is compressed by the server (Valkey 9.2, `rdbcompression lz4`).
    #[error("the file is compressed by the server as a whole")]
    Compressed,
    /// A type or opcode whose layout is known by description only, which did not hold.
    #[error("the layout of type or opcode {0} is not as it was described")]
    Layout(u8),
}

/// Takes the events of a scan.
pub trait Handler {
    /// Why it may want no more.
    type Error;

    /// Takes the next event.
    ///
    /// # Errors
    /// Ends the scan, which can't go on afterwards.
    fn event(&mut self, event: Event<'_>) -> Result<(), Self::Error>;
}

impl<H: Handler + ?Sized> Handler for &mut H {
    type Error = H::Error;

    fn event(&mut self, event: Event<'_>) -> Result<(), H::Error> {
        (**self).event(event)
    }
}

/// A handler made of a closure: see [`from_fn`].
#[derive(Clone, Copy, Debug)]
pub struct FromFn<F>(F);

/// Makes a handler of a closure.
pub fn from_fn<E, F: FnMut(Event<'_>) -> Result<(), E>>(f: F) -> FromFn<F> {
    FromFn(f)
}

impl<E, F: FnMut(Event<'_>) -> Result<(), E>> Handler for FromFn<F> {
    type Error = E;

    fn event(&mut self, event: Event<'_>) -> Result<(), E> {
        (self.0)(event)
    }
}
