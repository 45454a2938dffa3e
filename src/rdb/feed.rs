//! One slice's way through the scanner.

use super::error::{Damage, FileError, ScanError};
use super::event::{Checksum, Event, Handler, Unknown};
use super::held::HeldCrc;
use super::item::{self, Halt, Item, Place};
use super::length::string_head;
use super::machine::{Cause, Fault};
use super::program::{self, opcode};
use super::scan::{Goal, Scanner, State};
use super::types::{DbIndex, Family, FileVersion};

/// The checksum takes blocks of this many bytes: small enough to stay in the cache for the scan.
const CRC_BLOCK: usize = 64 * 1024;

/// What an item may have beside its one long string.
const HEAD_ROOM: u64 = 1024;

/// A gathering buffer that grew beyond this is given back after use.
const KEEP_PENDING: usize = 64 * 1024;

/// One call of [`Scanner::feed`].
pub(super) struct Feed<'s, 'i, 'h, H: Handler + ?Sized> {
    scanner: &'s mut Scanner,
    input: &'i [u8],
    /// How far the input is dealt with.
    at: usize,
    /// How far the checksum has taken it.
    summed: usize,
    /// Where the block begins that was summed last, and the checksum up to there.
    block: usize,
    before_block: Option<HeldCrc>,
    handler: &'h mut H,
}

type Fed<H> = Result<(), ScanError<<H as Handler>::Error>>;

impl<'s, 'i, 'h, H: Handler + ?Sized> Feed<'s, 'i, 'h, H> {
    pub(super) fn new(scanner: &'s mut Scanner, input: &'i [u8], handler: &'h mut H) -> Self {
        Feed {
            scanner,
            input,
            at: 0,
            summed: 0,
            block: 0,
            before_block: None,
            handler,
        }
    }
}

impl<'i, H: Handler + ?Sized> Feed<'_, 'i, '_, H> {
    pub(super) fn run(&mut self) -> Fed<H> {
        while self.at < self.input.len() {
            if self.at >= self.summed {
                self.sum_ahead();
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

    pub(super) fn sum_up_to(&mut self, end: usize) {
        if self.scanner.state != State::Ended && end > self.summed {
            self.scanner.crc.push(&self.input[self.summed..end]);
        }
        self.summed = end.max(self.summed);
    }

    /// Sums the next block before it is scanned: the scan then finds it in the cache.
    fn sum_ahead(&mut self) {
        // Behind an end mark that is cut, only the checksum itself may still come.
        if matches!(
            self.scanner.state,
            State::Ended | State::Gather(Goal::End) | State::Abandoned
        ) {
            return;
        }
        self.sum_up_to(self.at);
        self.block = self.summed;
        self.before_block = Some(self.scanner.crc.clone());
        self.sum_up_to(self.input.len().min(self.at + CRC_BLOCK));
    }

    /// Sums exactly what ends before `end`, which lies in the block that is being scanned.
    fn sum_exactly(&mut self, end: usize) {
        if self.summed > end
            && let Some(before) = self.before_block.take()
        {
            self.scanner.crc = before;
            self.summed = self.block;
        }
        self.sum_up_to(end);
        self.scanner.crc.release();
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
        self.sum_exactly(self.at + 1);
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
                // Most values are one string, and most are whole.
                if std::ptr::eq(layout, program::STRING)
                    && let Some(value) = whole_string(&self.input[self.at..], max)
                {
                    self.at += value.len();
                    self.emit(Event::Key(head))?;
                    self.emit(Event::Value(value))?;
                    return self.emit(Event::ValueEnd);
                }
                self.scanner.machine.start(layout, max);
                self.scanner.state = State::Value;
                self.emit(Event::Key(head))
            }
            Item::Aux(key, value) => self.emit(Event::Aux { key, value, raw }),
            Item::SelectDb(db) => {
                self.select(db, raw.len())?;
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

    /// A database is selected by the `len` bytes before this place.
    fn select(&mut self, db: DbIndex, len: usize) -> Fed<H> {
        let limit = self.scanner.limits.max_databases;
        self.scanner.db = db;
        self.scanner.selected.insert(db);
        if self.scanner.selected.len() > limit {
            return Err(FileError::Damaged {
                offset: self.offset(self.at) - len as u64,
                damage: Damage::Databases { limit },
            }
            .into());
        }
        Ok(())
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

/// The string at the start of `bytes`, if all of it is there.
#[inline]
fn whole_string(bytes: &[u8], max: u64) -> Option<&[u8]> {
    let string = string_head(bytes).ok()??;
    if string.body > max {
        return None;
    }
    let end = usize::try_from(string.body)
        .ok()?
        .checked_add(string.head)?;
    bytes.get(..end)
}

/// Valkey 9.2, `rdbcompression lz4`: the magic before an LZ4 frame.
pub(super) const COMPRESSED_MAGIC: &[u8] = b"VCS";

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
