//! The incremental scanner: slices of any size in, [`Event`]s out.
//!
//! Values are followed by a [`Machine`] and pass as fragments of the input. What must lie in one
//! piece (opcodes, keys) is parsed in the input when it is whole there; when a slice's end cuts it,
//! the machine gathers exactly its bytes, as they come, never what a length promises: no attempt is
//! repeated, and a lying length costs nothing.
//!
//! The trap: the checksum covers everything before itself, and in an opaque file nobody says where
//! that is. So it runs over blocks, and always leaves out the last 8 bytes seen.

use super::crc64::Crc64;
use super::error::{Damage, FileError, ScanError};
use super::event::{Checksum, Event, Handler, Unknown};
use super::item::{self, Halt, Item, Place};
use super::machine::{Cause, Fault, Machine};
use super::program::{self, opcode};
use super::types::{DbIndex, Family, FileVersion};

/// The checksum takes blocks of this many bytes: small enough that they are still in the cache.
const CRC_BLOCK: usize = 64 * 1024;

/// What an item may have beside its one long string.
const HEAD_ROOM: u64 = 1024;

/// A gathering buffer that grew beyond this is given back after use.
const KEEP_PENDING: usize = 64 * 1024;

/// What a scanner accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of what must lie in one piece: a key's name, a function library, an aux field.
    pub max_item: u64,
    /// The most bytes of one string in a value. It costs no memory: values pass in fragments.
    pub max_string: u64,
}

impl Default for Limits {
    /// A server's own limit of 512 MiB for the former; 1 TiB for the latter.
    fn default() -> Limits {
        Limits {
            max_item: 512 << 20,
            max_string: 1 << 40,
        }
    }
}

/// What a whole scan found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The header's version; `None` for a file that the server compressed as a whole.
    pub version: Option<FileVersion>,
    /// What the checksum proved.
    pub checksum: Checksum,
    /// From where on the file is opaque, and why.
    pub opaque: Option<(u64, Unknown)>,
    /// The file's length.
    pub bytes: u64,
}

/// What stands at the place where the scanner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// An opcode or a key begins.
    Top,
    /// Something that must lie in one piece is being gathered.
    Gather(Goal),
    /// In a value.
    Value,
    /// In a module's own data.
    ModuleAux,
    /// In what can't be read.
    Opaque,
    /// Behind the end.
    Ended,
    /// After an error.
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Header,
    Item,
    End,
}

/// The scanner. Feed it the file from its beginning, then [`finish`](Scanner::finish). A clone goes
/// on from the same place.
#[derive(Clone, Debug)]
pub struct Scanner {
    limits: Limits,
    state: State,
    version: Option<FileVersion>,
    db: DbIndex,
    machine: Machine,
    pending: Vec<u8>,
    /// The offset in the file of the slice that is being fed.
    base: u64,
    crc: HeldCrc,
    checksum: Checksum,
    opaque: Option<(u64, Unknown)>,
    /// A type or opcode was met whose layout is known by description only.
    untried: Option<u8>,
    trailing: u64,
}

impl Default for Scanner {
    fn default() -> Scanner {
        Scanner::new()
    }
}

impl Scanner {
    /// A scanner with the default limits.
    pub fn new() -> Scanner {
        Scanner::with_limits(Limits::default())
    }

    /// A scanner with limits of its own.
    pub fn with_limits(limits: Limits) -> Scanner {
        // The header tells the family; before it nothing depends on one.
        let mut machine = Machine::new(Family::Redis);
        machine.start(program::FILE_HEADER, 0);
        Scanner {
            limits,
            state: State::Gather(Goal::Header),
            version: None,
            db: DbIndex(0),
            machine,
            pending: Vec::new(),
            base: 0,
            crc: HeldCrc::default(),
            checksum: Checksum::Unverifiable,
            opaque: None,
            untried: None,
            trailing: 0,
        }
    }

    /// How many bytes it was fed.
    pub fn offset(&self) -> u64 {
        self.base
    }

    /// Takes the next bytes of the file and hands their events to `handler`.
    ///
    /// # Errors
    /// The file is damaged, or the handler wants no more. The scanner is of no use afterwards.
    pub fn feed<H: Handler + ?Sized>(
        &mut self,
        input: &[u8],
        handler: &mut H,
    ) -> Result<(), ScanError<H::Error>> {
        let mut feed = Feed {
            scanner: self,
            input,
            at: 0,
            summed: 0,
            handler,
        };
        match feed.run() {
            Ok(()) => {
                feed.sum_up_to(input.len());
                self.base += input.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.state = State::Abandoned;
                Err(error)
            }
        }
    }

    /// Says that the file ends here.
    ///
    /// # Errors
    /// It should not end here, something follows its end, or an opaque file's checksum does not fit.
    pub fn finish<H: Handler + ?Sized>(
        self,
        handler: &mut H,
    ) -> Result<Report, ScanError<H::Error>> {
        let truncated = FileError::Truncated { offset: self.base };
        let report = Report {
            version: self.version,
            checksum: self.checksum,
            opaque: self.opaque,
            bytes: self.base,
        };
        match self.state {
            State::Abandoned => Err(FileError::Abandoned.into()),
            State::Ended if self.trailing > 0 => Err(FileError::Trailing {
                offset: self.base - self.trailing,
                count: self.trailing,
            }
            .into()),
            State::Ended => Ok(report),
            State::Opaque => Ok(Report {
                checksum: self.opaque_checksum()?,
                ..report
            }),
            State::Gather(Goal::Header) if !may_be_magic(&self.pending) => {
                Err(FileError::NotRdb.into())
            }
            State::Top | State::Gather(_) | State::Value | State::ModuleAux => {
                // A layout that is known by description only may have led beyond the end.
                let Some(code) = self.untried.filter(|_| self.crc.ends_well()) else {
                    return Err(truncated.into());
                };
                let offset = self.base - self.pending.len() as u64;
                let what = Unknown::Layout(code);
                handler
                    .event(Event::Opaque { offset, what })
                    .map_err(ScanError::Handler)?;
                if !self.pending.is_empty() {
                    handler
                        .event(Event::OpaqueBytes(&self.pending))
                        .map_err(ScanError::Handler)?;
                }
                Ok(Report {
                    checksum: Checksum::Verified,
                    opaque: Some((offset, what)),
                    ..report
                })
            }
        }
    }

    fn opaque_checksum(&self) -> Result<Checksum, FileError> {
        let Some(version) = self.version else {
            return Ok(Checksum::Unverifiable);
        };
        let truncated = FileError::Truncated { offset: self.base };
        if !version.has_checksum() {
            return match self.crc.held().last() {
                Some(&opcode::END) => Ok(Checksum::Unverifiable),
                _ => Err(truncated),
            };
        }
        let Some(found) = self.crc.found() else {
            return Err(truncated);
        };
        if found == self.crc.value() {
            Ok(Checksum::Verified)
        } else if self.crc.last_before() != Some(opcode::END) {
            Err(truncated)
        } else if found == 0 {
            Ok(Checksum::Unverifiable)
        } else {
            Err(FileError::Checksum {
                offset: self.base - 8,
                found,
                computed: self.crc.value(),
            })
        }
    }
}

/// One call of [`Scanner::feed`].
struct Feed<'s, 'i, 'h, H: Handler + ?Sized> {
    scanner: &'s mut Scanner,
    input: &'i [u8],
    /// How far the input is dealt with.
    at: usize,
    /// How far the checksum has taken it.
    summed: usize,
    handler: &'h mut H,
}

type Fed<H> = Result<(), ScanError<<H as Handler>::Error>>;

impl<H: Handler + ?Sized> Feed<'_, '_, '_, H> {
    fn run(&mut self) -> Fed<H> {
        while self.at < self.input.len() {
            // Behind an end mark that is cut, the checksum is a byte ahead.
            if self.at.saturating_sub(self.summed) >= CRC_BLOCK {
                self.sum_up_to(self.at);
            }
            match self.scanner.state {
                State::Top => self.top()?,
                State::Value => {
                    if self.body(|bytes| Event::Value(bytes))? {
                        self.scanner.state = State::Top;
                        self.emit(Event::ValueEnd)?;
                    }
                }
                State::Gather(goal) => self.gather(goal)?,
                State::ModuleAux => {
                    if self.body(|bytes| Event::ModuleAuxData(bytes))? {
                        self.scanner.state = State::Top;
                        self.emit(Event::ModuleAuxEnd)?;
                    }
                }
                State::Opaque => {
                    let rest = &self.input[self.at..];
                    self.emit(Event::OpaqueBytes(rest))?;
                    self.at = self.input.len();
                }
                State::Ended => {
                    self.scanner.trailing += (self.input.len() - self.at) as u64;
                    self.at = self.input.len();
                }
                State::Abandoned => return Err(FileError::Abandoned.into()),
            }
        }
        Ok(())
    }

    #[inline]
    fn emit(&mut self, event: Event<'_>) -> Fed<H> {
        self.handler.event(event).map_err(ScanError::Handler)
    }

    fn sum_up_to(&mut self, end: usize) {
        if self.scanner.state != State::Ended {
            self.scanner.crc.push(&self.input[self.summed..end]);
        }
        self.summed = end;
    }

    fn place(&self) -> Place {
        Place {
            family: self
                .scanner
                .version
                .map_or(Family::Redis, |version| version.family),
            db: self.scanner.db,
            max_item: self.scanner.limits.max_item,
        }
    }

    /// An opcode or a key begins here.
    #[inline]
    fn top(&mut self) -> Fed<H> {
        let input = self.input;
        let rest = &input[self.at..];
        if rest[0] == opcode::END {
            return self.end();
        }
        match item::parse(rest, self.place()) {
            Ok((item, len)) => {
                self.at += len;
                self.item(item, &rest[..len])
            }
            Err(Halt::Cut) => {
                let layout = item::layout(rest[0], self.place().family);
                let max = self.scanner.limits.max_item;
                self.scanner.machine.start(layout, max);
                self.scanner.state = State::Gather(Goal::Item);
                Ok(())
            }
            Err(Halt::Fault(fault)) => self.fault(self.offset(self.at), fault),
        }
    }

    /// The end mark is here.
    fn end(&mut self) -> Fed<H> {
        let has_checksum = self.scanner.version.is_some_and(FileVersion::has_checksum);
        self.sum_up_to(self.at + 1);
        self.scanner.crc.release();
        let rest = &self.input[self.at..];
        if !has_checksum {
            self.at += 1;
            return self.ended(Checksum::Absent, &rest[..1]);
        }
        match rest.get(..9) {
            Some(raw) => {
                self.at += 9;
                self.checked_end(raw)
            }
            None => {
                self.scanner.machine.start(program::END, 0);
                self.scanner.state = State::Gather(Goal::End);
                Ok(())
            }
        }
    }

    /// The end mark and the checksum, in one piece, just passed.
    fn checked_end(&mut self, raw: &[u8]) -> Fed<H> {
        let mut stored = [0; 8];
        stored.copy_from_slice(&raw[1..9]);
        let found = u64::from_le_bytes(stored);
        let computed = self.scanner.crc.value();
        if found == computed {
            self.ended(Checksum::Verified, raw)
        } else if found == 0 {
            self.ended(Checksum::Disabled, raw)
        } else {
            let at = self.offset(self.at);
            if let Some(code) = self.scanner.untried {
                self.sum_up_to(self.at);
                self.opaque(at - 9, Unknown::Layout(code))?;
                return self.emit(Event::OpaqueBytes(raw));
            }
            Err(FileError::Checksum {
                offset: at - 8,
                found,
                computed,
            }
            .into())
        }
    }

    fn ended(&mut self, checksum: Checksum, raw: &[u8]) -> Fed<H> {
        self.scanner.checksum = checksum;
        self.scanner.state = State::Ended;
        self.emit(Event::End { checksum, raw })
    }

    /// An item, in one piece; the place is behind it.
    #[inline]
    fn item(&mut self, item: Item<'_>, raw: &[u8]) -> Fed<H> {
        self.scanner.state = State::Top;
        match item {
            Item::Key(head) => {
                if !head.value_type.is_tried() {
                    self.scanner.untried = Some(head.value_type.code());
                } else if !head.meta.is_empty() {
                    self.scanner.untried = Some(opcode::META_OR_IMPORT);
                }
                let layout = head.value_type.layout();
                let max = self.scanner.limits.max_string;
                self.scanner.machine.start(layout, max);
                self.scanner.state = State::Value;
                self.emit(Event::Key(head))
            }
            Item::Aux(key, value) => self.emit(Event::Aux { key, value, raw }),
            Item::SelectDb(db) => {
                self.scanner.db = db;
                self.emit(Event::SelectDb { db, raw })
            }
            Item::ResizeDb(keys, expires) => self.emit(Event::ResizeDb { keys, expires, raw }),
            Item::SlotInfo => self.emit(Event::SlotInfo { raw }),
            Item::SlotImport => {
                self.scanner.untried = Some(opcode::META_OR_IMPORT);
                self.emit(Event::SlotImport { raw })
            }
            Item::Function(code) => self.emit(Event::Function { code, raw }),
            Item::FunctionPreGa => self.emit(Event::FunctionPreGa { raw }),
            Item::ModuleAux(module) => {
                let max = self.scanner.limits.max_string;
                self.scanner.machine.start(program::MODULE_AUX_BODY, max);
                self.scanner.state = State::ModuleAux;
                self.emit(Event::ModuleAux { module, raw })
            }
        }
    }

    /// The next fragment of what passes in fragments; whether it is the last.
    #[inline]
    fn body(
        &mut self,
        event: for<'x> fn(&'x [u8]) -> Event<'x>,
    ) -> Result<bool, ScanError<H::Error>> {
        let input = self.input;
        let rest = &input[self.at..];
        match self.scanner.machine.run(rest) {
            Ok(ran) => {
                self.at += ran.used;
                if ran.used > 0 {
                    self.emit(event(&rest[..ran.used]))?;
                }
                Ok(ran.done)
            }
            Err(fault) => {
                let begin = self.offset(self.at);
                if self.scanner.untried.is_some() && fault.used > 0 {
                    self.at += fault.used;
                    self.emit(event(&rest[..fault.used]))?;
                }
                self.fault(begin, fault)?;
                Ok(false)
            }
        }
    }

    /// The next bytes of what must lie in one piece.
    fn gather(&mut self, goal: Goal) -> Fed<H> {
        let input = self.input;
        let rest = &input[self.at..];
        let ran = match self.scanner.machine.run(rest) {
            Ok(ran) => ran,
            Err(fault) => return self.fault(self.offset(self.at), fault),
        };
        let length = (self.scanner.pending.len() + ran.used) as u64;
        let limit = self.scanner.limits.max_item;
        if length > limit.saturating_add(HEAD_ROOM) {
            let offset = self.offset(self.at) - self.scanner.pending.len() as u64;
            let damage = Damage::TooLong { length, limit };
            return Err(FileError::Damaged { offset, damage }.into());
        }
        self.scanner.pending.extend_from_slice(&rest[..ran.used]);
        self.at += ran.used;
        if !ran.done {
            return Ok(());
        }
        let mut pending = std::mem::take(&mut self.scanner.pending);
        let result = match goal {
            Goal::Header => self.header(&pending),
            Goal::End => self.checked_end(&pending),
            Goal::Item => match item::parse(&pending, self.place()) {
                Ok((item, _)) => self.item(item, &pending),
                // The machine has followed the very layout that is parsed here.
                Err(Halt::Cut) => Err(FileError::Abandoned.into()),
                Err(Halt::Fault(fault)) => {
                    let begin = self.offset(self.at) - pending.len() as u64;
                    self.scanner.pending = pending;
                    return self.fault(begin, fault);
                }
            },
        };
        pending.clear();
        if pending.capacity() <= KEEP_PENDING {
            self.scanner.pending = pending;
        }
        result
    }

    fn header(&mut self, raw: &[u8]) -> Fed<H> {
        if raw.starts_with(COMPRESSED_MAGIC) {
            self.opaque(0, Unknown::Compressed)?;
            return self.emit(Event::OpaqueBytes(raw));
        }
        let Some(version) = version_of(raw) else {
            return Err(FileError::NotRdb.into());
        };
        self.scanner.version = Some(version);
        self.scanner.machine.set_family(version.family);
        self.scanner.state = State::Top;
        self.emit(Event::Header { version, raw })
    }

    /// Something can't be followed: damage, or the beginning of what is not known. `begin` is where
    /// in the file the fault counts from.
    #[cold]
    fn fault(&mut self, begin: u64, fault: Fault) -> Fed<H> {
        let offset = begin + fault.used as u64 - fault.carried as u64;
        let what = match (fault.cause, self.scanner.untried) {
            (Cause::Unknown(code), _) => Unknown::Type(code),
            (Cause::Damage(_), Some(code)) => Unknown::Layout(code),
            (cause @ Cause::Damage(_), None) => return Err(self.error(offset, cause)),
        };
        self.opaque(offset, what)?;
        let pending = std::mem::take(&mut self.scanner.pending);
        if pending.is_empty() {
            return Ok(());
        }
        self.emit(Event::OpaqueBytes(&pending))
    }

    fn error(&self, offset: u64, cause: Cause) -> ScanError<H::Error> {
        let damage = match cause {
            Cause::Damage(damage) => damage,
            Cause::Unknown(byte) => Damage::NoKey(byte),
        };
        FileError::Damaged { offset, damage }.into()
    }

    fn opaque(&mut self, offset: u64, what: Unknown) -> Fed<H> {
        self.scanner.state = State::Opaque;
        self.scanner.opaque = Some((offset, what));
        self.emit(Event::Opaque { offset, what })
    }

    fn offset(&self, at: usize) -> u64 {
        self.scanner.base + at as u64
    }
}

/// Scans a file that lies in memory.
///
/// # Errors
/// As [`Scanner::feed`] and [`Scanner::finish`].
pub fn scan_bytes<H: Handler + ?Sized>(
    bytes: &[u8],
    handler: &mut H,
) -> Result<Report, ScanError<H::Error>> {
    let mut scanner = Scanner::new();
    scanner.feed(bytes, handler)?;
    scanner.finish(handler)
}

/// Valkey 9.2, `rdbcompression lz4`: the magic before an LZ4 frame.
const COMPRESSED_MAGIC: &[u8] = b"VCS";

fn version_of(raw: &[u8]) -> Option<FileVersion> {
    let (family, digits) = if let Some(digits) = raw.strip_prefix(b"REDIS") {
        (Family::Redis, digits)
    } else {
        (Family::Valkey, raw.strip_prefix(b"VALKEY")?)
    };
    let number = digits.iter().try_fold(0u16, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u16::from(digit - b'0'))
    })?;
    (number > 0).then_some(FileVersion { family, number })
}

/// Whether so few bytes could be the beginning of a file.
fn may_be_magic(bytes: &[u8]) -> bool {
    [b"REDIS", &b"VALKEY"[..], COMPRESSED_MAGIC]
        .into_iter()
        .any(|magic| {
            let len = bytes.len().min(magic.len());
            bytes[..len] == magic[..len]
        })
}

/// A checksum of everything but the last 8 bytes seen.
#[derive(Clone, Debug, Default)]
struct HeldCrc {
    crc: Crc64,
    held: [u8; 8],
    held_len: usize,
    /// The last byte that the checksum has taken.
    last: Option<u8>,
}

impl HeldCrc {
    fn push(&mut self, bytes: &[u8]) {
        if bytes.len() >= 8 {
            self.release();
            let (now, later) = bytes.split_at(bytes.len() - 8);
            self.crc.update(now);
            self.last = now.last().copied().or(self.last);
            self.held.copy_from_slice(later);
            self.held_len = 8;
            return;
        }
        // What is too much for the held bytes goes from their beginning.
        let over = (self.held_len + bytes.len()).saturating_sub(8);
        if over > 0 {
            self.crc.update(&self.held[..over]);
            self.last = Some(self.held[over - 1]);
            self.held.copy_within(over.., 0);
            self.held_len -= over;
        }
        self.held[self.held_len..self.held_len + bytes.len()].copy_from_slice(bytes);
        self.held_len += bytes.len();
    }

    /// Takes the last bytes in too.
    fn release(&mut self) {
        if let Some(&last) = self.held().last() {
            self.crc.update(&self.held[..self.held_len]);
            self.last = Some(last);
            self.held_len = 0;
        }
    }

    fn held(&self) -> &[u8] {
        &self.held[..self.held_len]
    }

    /// The checksum of everything but the held bytes.
    fn value(&self) -> u64 {
        self.crc.value()
    }

    /// What the held bytes say if they are a checksum.
    fn found(&self) -> Option<u64> {
        (self.held_len == 8).then(|| u64::from_le_bytes(self.held))
    }

    fn last_before(&self) -> Option<u8> {
        self.last
    }

    /// Whether the last 9 bytes are an end mark and the right checksum.
    fn ends_well(&self) -> bool {
        self.last == Some(opcode::END) && self.found() == Some(self.crc.value())
    }
}
