//! A value as DUMP gives it and RESTORE takes it: type byte, value exactly as in a file, RDB version
//! (2 bytes, little-endian), CRC64 (8 bytes, little-endian) over all before it (`createDumpPayload`
//! in `cluster.c`). FUNCTION DUMP ends in the same footer.
//!
//! The trap: RESTORE judges the footer's version before it looks at the type, so a value that an old
//! server knows is refused in a new server's payload: see [`footer_version_for`].

use super::crc64::{Crc64, crc64};
use super::error::Damage;
use super::machine::{Cause, measure};
use super::program::{self, opcode};
use super::string::StringRef;
use super::types::{Family, FileVersion, ValueType};

/// Version and checksum.
pub const FOOTER_BYTES: usize = 10;

/// The newest version that Redis and Valkey share.
const LAST_COMMON_VERSION: u16 = 11;

/// The last type that both families know.
const LAST_COMMON_TYPE: u8 = 21;

/// Why bytes are no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// Shorter than a type byte and a footer.
    #[error("the payload is too short: {0} bytes")]
    TooShort(usize),
    /// The checksum does not fit.
    #[error("the payload's checksum does not fit")]
    Checksum,
    /// A rule of the format is broken.
    #[error("the payload is damaged at byte {at}: {damage}")]
    Damaged {
        /// Where in the payload.
        at: usize,
        /// What.
        damage: Damage,
    },
    /// The value ends before the footer, or would go on into it.
    #[error("the payload's value does not end at its footer")]
    Length,
}

/// What a payload consists of.
#[derive(Clone, Copy)]
pub struct Payload<'a> {
    /// The RDB version in the footer, and the family that follows from it.
    pub version: FileVersion,
    /// The type byte.
    pub type_code: u8,
    /// What the type byte means; `None` when that is not known, or the type cannot be skipped.
    pub value_type: Option<ValueType>,
    /// The key's metadata, opcode included; mostly empty.
    pub meta: &'a [u8],
    /// The value as in a file.
    pub value: &'a [u8],
}

impl std::fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Payload(type {}, {} bytes, {})",
            self.type_code,
            self.value.len(),
            self.version
        )
    }
}

impl<'a> Payload<'a> {
    /// Takes a payload apart: the footer is checked (a checksum of zero is not, as a server that
    /// writes none would have it), and that a value of known type ends where the footer begins.
    ///
    /// # Errors
    /// It is no payload, or a damaged one.
    pub fn parse(bytes: &'a [u8]) -> Result<Payload<'a>, PayloadError> {
        let (body, number) = check_footer(bytes)?;
        let version = FileVersion::of_number(number);
        let mut at = 0;
        if version.family == Family::Redis && body.first() == Some(&opcode::META_OR_IMPORT) {
            let rest = &body[1..];
            at = 1 + exact(program::KEY_METADATA, version.family, rest, 1)?;
        }
        let (meta, rest) = body.split_at(at);
        let (&type_code, value) = rest
            .split_first()
            .ok_or(PayloadError::TooShort(bytes.len()))?;
        let value_type = ValueType::new(type_code, version.family);
        if let Some(value_type) = value_type {
            let len = exact(value_type.layout(), version.family, value, at + 1);
            // The layout of some types is known by description only: those are not judged by it.
            if value_type.is_tried() && len? != value.len() {
                return Err(PayloadError::Length);
            }
        }
        Ok(Payload {
            version,
            type_code,
            value_type,
            meta,
            value,
        })
    }
}

fn check_footer(bytes: &[u8]) -> Result<(&[u8], u16), PayloadError> {
    let too_short = PayloadError::TooShort(bytes.len());
    let (summed, checksum) = bytes.split_last_chunk::<8>().ok_or(too_short)?;
    let (body, version) = summed.split_last_chunk::<2>().ok_or(too_short)?;
    let checksum = u64::from_le_bytes(*checksum);
    if checksum != 0 && checksum != crc64(summed) {
        return Err(PayloadError::Checksum);
    }
    Ok((body, u16::from_le_bytes(*version)))
}

fn exact(
    layout: &'static [program::Op],
    family: Family,
    bytes: &[u8],
    begin: usize,
) -> Result<usize, PayloadError> {
    match measure(layout, family, bytes) {
        Ok(Some(len)) => Ok(len),
        Ok(None) => Err(PayloadError::Length),
        Err(fault) => Err(PayloadError::Damaged {
            at: begin + fault.used,
            damage: match fault.cause {
                Cause::Damage(damage) => damage,
                Cause::Unknown(byte) => Damage::NoKey(byte),
            },
        }),
    }
}

/// A payload in the making: of a value that comes in fragments.
#[derive(Clone, Debug)]
pub struct PayloadBuilder(Vec<u8>);

impl PayloadBuilder {
    /// Begins with what stands before the value. `meta` is empty or begins with its opcode.
    pub fn new(type_code: u8, meta: &[u8]) -> PayloadBuilder {
        PayloadBuilder::reusing(Vec::new(), type_code, meta)
    }

    /// The same in a buffer that was used before; its content goes.
    pub fn reusing(mut buffer: Vec<u8>, type_code: u8, meta: &[u8]) -> PayloadBuilder {
        buffer.clear();
        buffer.extend_from_slice(meta);
        buffer.push(type_code);
        PayloadBuilder(buffer)
    }

    /// Adds the next fragment of the value.
    pub fn push(&mut self, fragment: &[u8]) {
        self.0.extend_from_slice(fragment);
    }

    /// How many bytes the payload will have.
    pub fn payload_bytes(&self) -> usize {
        self.0.len() + FOOTER_BYTES
    }

    /// What there is of it so far: metadata, type byte, value.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Ends it with a footer of this RDB version.
    pub fn finish(mut self, rdb_version: u16) -> Vec<u8> {
        let footer = footer(&self.0, rdb_version);
        self.0.extend_from_slice(&footer);
        self.0
    }
}

/// The payload of a value that is whole. `meta` is empty or begins with its opcode.
pub fn encode(type_code: u8, meta: &[u8], value: &[u8], rdb_version: u16) -> Vec<u8> {
    let buffer = Vec::with_capacity(meta.len() + 1 + value.len() + FOOTER_BYTES);
    let mut builder = PayloadBuilder::reusing(buffer, type_code, meta);
    builder.push(value);
    builder.finish(rdb_version)
}

/// Version and checksum to stand behind `body`.
pub fn footer(body: &[u8], rdb_version: u16) -> [u8; FOOTER_BYTES] {
    let version = rdb_version.to_le_bytes();
    let mut crc = Crc64::new();
    crc.update(body);
    crc.update(&version);
    let mut footer = [0; FOOTER_BYTES];
    footer[..2].copy_from_slice(&version);
    footer[2..].copy_from_slice(&crc.value().to_le_bytes());
    footer
}

/// The footer version under which RESTORE takes a value on a server of `target` whose own RDB
/// version is `rdb_version`; `None` when it does not know the type.
///
/// Up to Redis 3.2 (version 7) RESTORE takes its own version only; later anything up to its own,
/// but Valkey 9 nothing from 12 to 79. So what both families know goes as 11 at most.
///
/// A payload with metadata needs Redis with version 13 or later, whatever its type.
pub fn footer_version_for(value_type: ValueType, target: Family, rdb_version: u16) -> Option<u16> {
    if !value_type.known_to(target, rdb_version) {
        None
    } else if value_type.code() > LAST_COMMON_TYPE {
        Some(rdb_version)
    } else {
        Some(rdb_version.min(LAST_COMMON_VERSION))
    }
}

/// The footer version under which FUNCTION RESTORE takes libraries on a server whose own RDB
/// version is `rdb_version`; `None` before Redis 7.0 (version 10), which has no functions.
pub fn functions_footer_version(rdb_version: u16) -> Option<u16> {
    (rdb_version >= 10).then(|| rdb_version.min(LAST_COMMON_VERSION))
}

/// The function libraries of a FUNCTION DUMP, in file form without their opcodes: each a source.
///
/// # Errors
/// It is no such payload, or a damaged one.
pub fn parse_functions(bytes: &[u8]) -> Result<Vec<StringRef<'_>>, PayloadError> {
    let (body, number) = check_footer(bytes)?;
    let family = FileVersion::of_number(number).family;
    let mut at = 0;
    let mut libraries = Vec::new();
    while at < body.len() {
        if body[at] != opcode::FUNCTION {
            let damage = Damage::NoKey(body[at]);
            return Err(PayloadError::Damaged { at, damage });
        }
        let string = &body[at + 1..];
        let len = exact(program::STRING, family, string, at + 1)?;
        match StringRef::parse(&string[..len]) {
            Ok(Some(source)) => libraries.push(source),
            _ => return Err(PayloadError::Length),
        }
        at += 1 + len;
    }
    Ok(libraries)
}

/// The payload for FUNCTION RESTORE of libraries as they stand in a file.
pub fn encode_functions<'a>(
    libraries: impl IntoIterator<Item = StringRef<'a>>,
    rdb_version: u16,
) -> Vec<u8> {
    let mut body = Vec::new();
    for library in libraries {
        body.push(opcode::FUNCTION);
        body.extend_from_slice(library.raw());
    }
    let footer = footer(&body, rdb_version);
    body.extend_from_slice(&footer);
    body
}
