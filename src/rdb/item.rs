//! What must lie in one piece, parsed where it lies: opcodes, and a key up to its value.

use super::error::Damage;
use super::event::KeyHead;
use super::length::{self, Form, string_head};
use super::machine::{Cause, Fault, measure};
use super::program::{self, Op, opcode};
use super::string::StringRef;
use super::types::{DbIndex, Family, ModuleId, ValueType};

/// No server has more databases.
const MAX_DB: u64 = (1 << 24) - 1;

/// One opcode, or a key up to its value.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    Aux(StringRef<'a>, StringRef<'a>),
    SelectDb(DbIndex),
    ResizeDb(u64, u64),
    SlotInfo,
    SlotImport,
    Function(StringRef<'a>),
    FunctionPreGa,
    ModuleAux(ModuleId),
    Key(KeyHead<'a>),
}

/// Why there is no item.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The bytes end before it does.
    Cut,
    /// It can't be read: at so many bytes from its beginning.
    Fault(Fault),
}

/// What [`parse`] must know of where the item stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) family: Family,
    pub(crate) db: DbIndex,
    pub(crate) max_item: u64,
}

/// The layout of the item that `first` begins.
pub(crate) fn layout(first: u8, family: Family) -> &'static [Op] {
    match first {
        opcode::AUX => program::AUX,
        opcode::SELECT_DB => program::SELECT_DB,
        opcode::RESIZE_DB => program::RESIZE_DB,
        opcode::SLOT_INFO => program::SLOT_INFO,
        opcode::FUNCTION => program::FUNCTION,
        opcode::FUNCTION_PRE_GA => program::FUNCTION_PRE_GA,
        opcode::MODULE_AUX => program::MODULE_AUX_HEAD,
        opcode::META_OR_IMPORT if family == Family::Valkey => program::SLOT_IMPORT,
        _ => program::KEY_HEAD,
    }
}

/// Parses the item at the start of `bytes`, which are not empty and begin with no end mark. Answers
/// it and its length.
#[inline]
pub(crate) fn parse(bytes: &[u8], place: Place) -> Result<(Item<'_>, usize), Halt> {
    let first = bytes[0];
    let mut reader = Reader {
        bytes,
        at: 0,
        max_item: place.max_item,
    };
    if first < opcode::META_OR_IMPORT || (opcode::IDLE..=opcode::FREQ).contains(&first) {
        return key(reader, place);
    }
    reader.at = 1;
    let item = match first {
        opcode::AUX => {
            let key = reader.string()?;
            Item::Aux(key, reader.string()?)
        }
        opcode::SELECT_DB => {
            let db = reader.length()?;
            match u32::try_from(db) {
                Ok(small) if db <= MAX_DB => Item::SelectDb(DbIndex(small)),
                _ => return Err(reader.fault_at(1, Damage::Database(db))),
            }
        }
        opcode::RESIZE_DB => {
            let keys = reader.length()?;
            Item::ResizeDb(keys, reader.length()?)
        }
        opcode::SLOT_INFO => {
            reader.layout(&program::SLOT_INFO[1..], place.family)?;
            Item::SlotInfo
        }
        opcode::FUNCTION => Item::Function(reader.string()?),
        opcode::FUNCTION_PRE_GA => {
            reader.layout(&program::FUNCTION_PRE_GA[1..], place.family)?;
            Item::FunctionPreGa
        }
        opcode::MODULE_AUX => Item::ModuleAux(ModuleId(reader.length()?)),
        opcode::META_OR_IMPORT if place.family == Family::Valkey => {
            reader.layout(&program::SLOT_IMPORT[1..], place.family)?;
            Item::SlotImport
        }
        _ => {
            reader.at = 0;
            return key(reader, place);
        }
    };
    Ok((item, reader.at))
}

#[inline]
fn key<'a>(mut reader: Reader<'a>, place: Place) -> Result<(Item<'a>, usize), Halt> {
    let mut expire_at_ms = None;
    let mut idle_s = None;
    let mut freq = None;
    let mut meta: &[u8] = &[];
    loop {
        let at = reader.at;
        let byte = reader.fixed::<1>()?[0];
        match byte {
            opcode::EXPIRE_MS => expire_at_ms = Some(i64::from_le_bytes(reader.fixed()?)),
            opcode::EXPIRE_S => {
                expire_at_ms = Some(i64::from(i32::from_le_bytes(reader.fixed()?)) * 1000);
            }
            opcode::IDLE => idle_s = Some(reader.length()?),
            opcode::FREQ => freq = Some(reader.fixed::<1>()?[0]),
            opcode::META_OR_IMPORT if place.family == Family::Redis => {
                reader.layout(program::KEY_METADATA, place.family)?;
                meta = &reader.bytes[at..reader.at];
            }
            opcode::META_OR_IMPORT..=opcode::END => {
                return Err(reader.fault_at(at, Damage::NoKey(byte)));
            }
            _ => {
                let Some(value_type) = ValueType::new(byte, place.family) else {
                    return Err(reader.fault_at(at, Cause::Unknown(byte)));
                };
                let key = reader.string()?;
                let head = KeyHead {
                    db: place.db,
                    value_type,
                    key,
                    // The server's own mark for "never".
                    expire_at_ms: expire_at_ms.filter(|&at| at != -1),
                    idle_s,
                    freq,
                    meta,
                    raw: &reader.bytes[..reader.at],
                };
                return Ok((Item::Key(head), reader.at));
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    max_item: u64,
}

impl<'a> Reader<'a> {
    #[cold]
    fn fault_at(&self, used: usize, cause: impl Into<Cause>) -> Halt {
        Halt::Fault(Fault {
            used,
            carried: 0,
            cause: cause.into(),
        })
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Halt> {
        let chunk = self.bytes[self.at..].first_chunk::<N>().ok_or(Halt::Cut)?;
        self.at += N;
        Ok(*chunk)
    }

    #[inline]
    fn length(&mut self) -> Result<u64, Halt> {
        let (value, len) = length::decode(&self.bytes[self.at..])
            .map_err(|damage| self.fault_at(self.at, damage))?
            .ok_or(Halt::Cut)?;
        self.at += len;
        Ok(value)
    }

    #[inline]
    fn string(&mut self) -> Result<StringRef<'a>, Halt> {
        let rest = &self.bytes[self.at..];
        let string = string_head(rest)
            .map_err(|damage| self.fault_at(self.at, damage))?
            .ok_or(Halt::Cut)?;
        let length = match string.form {
            Form::Lzf { plain } => plain.max(string.body),
            Form::Plain | Form::Int => string.body,
        };
        if length > self.max_item {
            let limit = self.max_item;
            return Err(self.fault_at(self.at, Damage::TooLong { length, limit }));
        }
        let end = usize::try_from(string.body)
            .ok()
            .and_then(|body| string.head.checked_add(body))
            .ok_or(Halt::Cut)?;
        let raw = rest.get(..end).ok_or(Halt::Cut)?;
        self.at += end;
        Ok(StringRef::new(raw, string.head, string.form))
    }

    fn layout(&mut self, layout: &'static [Op], family: Family) -> Result<(), Halt> {
        match measure(layout, family, &self.bytes[self.at..]) {
            Ok(Some(len)) => {
                self.at += len;
                Ok(())
            }
            Ok(None) => Err(Halt::Cut),
            Err(fault) => Err(self.fault_at(self.at + fault.used, fault.cause)),
        }
    }
}
