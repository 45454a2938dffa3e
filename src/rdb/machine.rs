//! Runs a layout over bytes that arrive in pieces.
//!
//! It decodes nothing and keeps nothing but its place: a stack of at most [`DEPTH`] frames, how much
//! of a body is still to pass, and the head of a token that a piece's end cut in two (at most
//! [`MAX_HEAD`] bytes). So a value of any size costs the same memory.

use super::error::Damage;
use super::length::{self, MAX_HEAD, string_head};
use super::program::{self, Op, opcode};
use super::types::{Family, ValueType};

/// The deepest nesting of the programs, with room: stream, groups, consumers, entries.
const DEPTH: usize = 6;

/// No collection can have more elements: a greater count is a lie that would be found much later.
const MAX_COUNT: u64 = 1 << 40;

/// A machine's answer when it found no fault: how many bytes it passed, and whether that was all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) used: usize,
    pub(crate) done: bool,
}

/// Where a machine had to stop: after `used` bytes of this piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) used: usize,
    /// How many bytes of the faulty token were in earlier pieces.
    pub(crate) carried: usize,
    pub(crate) cause: Cause,
}

/// Why a layout can't be followed further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The bytes break a rule.
    Damage(Damage),
    /// A type or opcode that is not known.
    Unknown(u8),
}

impl From<Damage> for Cause {
    fn from(damage: Damage) -> Cause {
        Cause::Damage(damage)
    }
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    ops: &'static [Op],
    /// The step that is next.
    at: usize,
    /// Rounds left, this one included.
    rounds: u64,
}

/// The interpreter.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    family: Family,
    frames: Vec<Frame>,
    /// One step that comes before the frames' next.
    inner: Option<Op>,
    /// Bytes of a body still to pass.
    skip: u64,
    token: [u8; MAX_HEAD],
    token_len: usize,
    max_string: u64,
}

/// What a token means for the machine.
struct Token {
    head: usize,
    body: u64,
    then: Then,
}

enum Then {
    Advance,
    /// First this step, then on.
    AdvanceThrough(Op),
    /// First this step, then the same again.
    Stay(Op),
    /// These steps, that many times, then on.
    Enter(&'static [Op], u64),
    /// These steps once, then the same again.
    EnterAndStay(&'static [Op]),
}

impl Machine {
    pub(crate) fn new(family: Family) -> Machine {
        Machine {
            family,
            frames: Vec::with_capacity(DEPTH),
            inner: None,
            skip: 0,
            token: [0; MAX_HEAD],
            token_len: 0,
            max_string: 0,
        }
    }

    pub(crate) fn set_family(&mut self, family: Family) {
        self.family = family;
    }

    /// Begins a layout. No string in it may be longer than `max_string`.
    #[inline]
    pub(crate) fn start(&mut self, layout: &'static [Op], max_string: u64) {
        self.frames.clear();
        self.frames.push(Frame {
            ops: layout,
            at: 0,
            rounds: 1,
        });
        self.inner = None;
        self.skip = 0;
        self.token_len = 0;
        self.max_string = max_string;
    }

    /// Passes over `bytes` as far as the layout goes.
    pub(crate) fn run(&mut self, bytes: &[u8]) -> Result<Ran, Fault> {
        let mut used = 0;
        loop {
            if self.skip > 0 {
                let left = bytes.len() - used;
                if self.skip > left as u64 {
                    self.skip -= left as u64;
                    return Ok(Ran {
                        used: bytes.len(),
                        done: false,
                    });
                }
                // Not more than `left`, so it fits.
                used += self.skip as usize;
                self.skip = 0;
            }
            let Some(op) = self.next_op() else {
                return Ok(Ran { used, done: true });
            };
            let rest = &bytes[used..];
            // Most steps of most values are strings that are whole.
            if let (Op::Str, 0) = (op, self.token_len)
                && let Ok(Some(string)) = string_head(rest)
                && string.body <= self.max_string
                && string.body <= (rest.len() - string.head) as u64
            {
                // Not more than what is left, so it fits.
                used += string.head + string.body as usize;
                self.advance();
                continue;
            }
            let token = if self.token_len == 0 {
                self.read(op, rest)
            } else {
                self.read_cut(op, rest)
            };
            match token {
                Ok(Some(token)) => {
                    used += token.head;
                    self.skip = token.body;
                    self.step(token.then);
                }
                Ok(None) => {
                    return Ok(Ran {
                        used: bytes.len(),
                        done: false,
                    });
                }
                Err(cause) => {
                    return Err(Fault {
                        used,
                        carried: self.token_len,
                        cause,
                    });
                }
            }
        }
    }

    #[inline]
    fn next_op(&self) -> Option<Op> {
        match self.inner {
            Some(op) => Some(op),
            None => self.frames.last().map(|frame| frame.ops[frame.at]),
        }
    }

    /// A token at the start of `rest`; keeps it when it is cut.
    #[inline]
    fn read(&mut self, op: Op, rest: &[u8]) -> Result<Option<Token>, Cause> {
        let token = self.token(op, rest)?;
        if token.is_none() {
            // Every token's head that is cut is shorter than MAX_HEAD.
            let len = rest.len().min(MAX_HEAD);
            self.token[..len].copy_from_slice(&rest[..len]);
            self.token_len = len;
        }
        Ok(token)
    }

    /// A token whose beginning was at the end of the last piece.
    fn read_cut(&mut self, op: Op, rest: &[u8]) -> Result<Option<Token>, Cause> {
        let before = self.token_len;
        let take = rest.len().min(MAX_HEAD - before);
        self.token[before..before + take].copy_from_slice(&rest[..take]);
        let whole = self.token;
        match self.token(op, &whole[..before + take])? {
            Some(token) => {
                self.token_len = 0;
                // It was incomplete before, so it ends beyond what was kept.
                Ok(Some(Token {
                    head: token.head - before,
                    ..token
                }))
            }
            None => {
                self.token_len = before + take;
                Ok(None)
            }
        }
    }

    #[inline]
    fn token(&self, op: Op, bytes: &[u8]) -> Result<Option<Token>, Cause> {
        let advance = |head, body| {
            Ok(Some(Token {
                head,
                body,
                then: Then::Advance,
            }))
        };
        match op {
            Op::Str => match string_head(bytes)? {
                Some(string) => {
                    limit(string.body, self.max_string)?;
                    advance(string.head, string.body)
                }
                None => Ok(None),
            },
            Op::Fixed(count) => advance(0, u64::from(count)),
            Op::Score => match bytes.first() {
                Some(&(253..=255)) => advance(1, 0),
                Some(&digits) => advance(1, u64::from(digits)),
                None => Ok(None),
            },
            Op::KeyPrefix => self.key_prefix(bytes),
            _ => {
                let Some((value, head)) = length::decode(bytes)? else {
                    return Ok(None);
                };
                let then = self.after_length(op, value)?;
                Ok(Some(Token {
                    head,
                    body: 0,
                    then,
                }))
            }
        }
    }

    #[inline]
    fn after_length(&self, op: Op, value: u64) -> Result<Then, Damage> {
        Ok(match op {
            Op::Repeat(ops) => {
                limit(value, MAX_COUNT)?;
                Then::Enter(ops, value)
            }
            Op::Container => match value {
                1 | 2 => Then::Advance,
                _ => return Err(Damage::Container(value)),
            },
            Op::Optional => match value {
                0 => Then::Advance,
                1 => Then::AdvanceThrough(Op::Str),
                _ => return Err(Damage::Flag(value)),
            },
            Op::When => match value {
                2 => Then::Advance,
                _ => return Err(Damage::WhenOpcode(value)),
            },
            Op::ModuleOps => match value {
                0 => Then::Advance,
                1 | 2 => Then::Stay(Op::Len),
                3 => Then::Stay(Op::Fixed(4)),
                4 => Then::Stay(Op::Fixed(8)),
                5 => Then::Stay(Op::Str),
                _ => return Err(Damage::ModuleOpcode(value)),
            },
            Op::Len | Op::Str | Op::Fixed(_) | Op::Score | Op::KeyPrefix => Then::Advance,
        })
    }

    fn key_prefix(&self, bytes: &[u8]) -> Result<Option<Token>, Cause> {
        let Some(&byte) = bytes.first() else {
            return Ok(None);
        };
        let then = match byte {
            opcode::EXPIRE_MS => Then::Stay(Op::Fixed(8)),
            opcode::EXPIRE_S => Then::Stay(Op::Fixed(4)),
            opcode::IDLE => Then::Stay(Op::Len),
            opcode::FREQ => Then::Stay(Op::Fixed(1)),
            opcode::META_OR_IMPORT if self.family == Family::Redis => {
                Then::EnterAndStay(program::KEY_METADATA)
            }
            opcode::META_OR_IMPORT..=opcode::END => return Err(Damage::NoKey(byte).into()),
            _ if ValueType::new(byte, self.family).is_some() => Then::Advance,
            _ => return Err(Cause::Unknown(byte)),
        };
        Ok(Some(Token {
            head: 1,
            body: 0,
            then,
        }))
    }

    #[inline]
    fn step(&mut self, then: Then) {
        match then {
            Then::Advance => self.advance(),
            Then::AdvanceThrough(op) => {
                self.advance();
                self.inner = Some(op);
            }
            Then::Stay(op) => self.inner = Some(op),
            Then::Enter(ops, rounds) => {
                // First on, then in: the last step of a frame leaves no frame behind.
                self.advance();
                if rounds > 0 {
                    self.frames.push(Frame { ops, at: 0, rounds });
                }
            }
            Then::EnterAndStay(ops) => self.frames.push(Frame {
                ops,
                at: 0,
                rounds: 1,
            }),
        }
    }

    #[inline]
    fn advance(&mut self) {
        if self.inner.take().is_some() {
            return;
        }
        if let Some(frame) = self.frames.last_mut() {
            frame.at += 1;
            if frame.at == frame.ops.len() {
                frame.at = 0;
                frame.rounds -= 1;
                if frame.rounds == 0 {
                    self.frames.pop();
                }
            }
        }
    }
}

#[inline]
fn limit(length: u64, limit: u64) -> Result<(), Damage> {
    if length > limit {
        Err(Damage::TooLong { length, limit })
    } else {
        Ok(())
    }
}

/// How many bytes the value at the start of `bytes` takes; `None` when it is cut.
pub(crate) fn measure(
    layout: &'static [Op],
    family: Family,
    bytes: &[u8],
) -> Result<Option<usize>, Fault> {
    let mut machine = Machine::new(family);
    machine.start(layout, u64::MAX);
    let ran = machine.run(bytes)?;
    Ok(ran.done.then_some(ran.used))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run_split(layout: &'static [Op], bytes: &[u8], piece: usize) -> Result<usize, Cause> {
        let mut machine = Machine::new(Family::Redis);
        machine.start(layout, 1 << 20);
        let mut total = 0;
        for part in bytes.chunks(piece) {
            let ran = machine.run(part).map_err(|fault| fault.cause)?;
            assert!(machine.frames.len() <= DEPTH && machine.frames.capacity() <= DEPTH);
            total += ran.used;
            if ran.done {
                return Ok(total);
            }
            assert_eq!(ran.used, part.len());
        }
        panic!("the layout goes on after {total} bytes");
    }

    #[test]
    fn a_stream_with_groups_ends_at_its_last_byte_however_it_is_split() {
        let mut bytes = vec![1, 0x10];
        bytes.extend([7; 16]);
        bytes.extend([3, b'l', b'p', b'p']);
        bytes.extend([1; 8]);
        bytes.extend([1, 1, b'g', 1, 1, 1]);
        bytes.extend([1]);
        bytes.extend([9; 24]);
        bytes.extend([1]);
        bytes.extend([1, 1, b'c']);
        bytes.extend([8; 16]);
        bytes.extend([1]);
        bytes.extend([9; 16]);
        let len = bytes.len();
        bytes.extend([0xee; 30]);
        for piece in 1..bytes.len() {
            assert_eq!(run_split(program::STREAM_3, &bytes, piece), Ok(len));
        }
    }

    #[test]
    fn a_cut_head_of_a_compressed_string_is_carried() {
        let mut bytes = vec![0xc3, 0x81, 0, 0, 0, 0, 0, 0, 0, 3];
        bytes.extend([0x80, 0, 0, 0, 5, 1, 2, 3]);
        for piece in 1..bytes.len() {
            assert_eq!(run_split(program::STRING, &bytes, piece), Ok(bytes.len()));
        }
    }

    #[test]
    fn what_breaks_a_rule_is_a_fault_and_not_a_panic() {
        for (layout, bytes) in [
            (program::QUICKLIST_2, &[1u8, 3, 0][..]),
            (program::MODULE, &[1, 6]),
            (program::MODULE_AUX_BODY, &[1]),
            (program::STRING, &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0]),
            (program::STRINGS, &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0]),
            (program::KEY_HEAD, &[252, 0, 0, 0, 0, 0, 0, 0, 0, 255]),
        ] {
            for piece in 1..=bytes.len() {
                assert!(
                    matches!(run_split(layout, bytes, piece), Err(Cause::Damage(_))),
                    "{bytes:?}"
                );
            }
        }
        assert_eq!(
            run_split(program::KEY_HEAD, &[28], 1),
            Err(Cause::Unknown(28))
        );
    }

    #[test]
    fn every_step_of_every_layout_reads_a_byte() {
        fn check(ops: &'static [Op]) {
            assert!(!ops.is_empty());
            for op in ops {
                match op {
                    Op::Fixed(count) => assert!(*count > 0),
                    Op::Repeat(ops) => check(ops),
                    _ => {}
                }
            }
        }
        for family in [Family::Redis, Family::Valkey] {
            for code in 0..=255 {
                if let Some(value_type) = ValueType::new(code, family) {
                    check(value_type.layout());
                }
            }
        }
    }
}
