//! The opcodes of a pickle, one after the other. They are those of CPython's `Lib/pickletools.py`.

use std::ops::Range;

use super::calls::{Callable, call};
use super::{Broken, Entry, Index, MOST, Node};

/// Adds one more, as long as there are not too many. Their indexes fit in an [`Index`].
fn keep<T>(kept: &mut Vec<T>, one: T) -> Result<(), Broken> {
    if kept.len() >= MOST {
        return Err(Broken::TooMany);
    }
    kept.push(one);
    Ok(())
}

/// What was met so far.
pub(super) struct Walker<'a> {
    input: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    entries: Vec<Entry>,
    stack: Vec<Index>,
    /// How high the stack was at each mark.
    marks: Vec<Index>,
    memo: Vec<Option<Index>>,
    /// How many places of the memo are taken.
    memoized: usize,
}

impl<'a> Walker<'a> {
    /// Before the first opcode.
    pub(super) fn new(input: &'a [u8]) -> Walker<'a> {
        Walker {
            input,
            at: 0,
            nodes: Vec::new(),
            entries: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            memoized: 0,
        }
    }

    /// To the end, where its value stands.
    pub(super) fn walk(&mut self) -> Result<Index, Broken> {
        loop {
            if let Some(top) = self.step()? {
                if self.at != self.input.len() {
                    return Err(self.broken("something follows the pickle"));
                }
                return Ok(top);
            }
        }
    }

    /// All values, and what stands in dictionaries.
    pub(super) fn finish(self) -> (Vec<Node>, Vec<Entry>) {
        (self.nodes, self.entries)
    }

    fn broken(&self, what: &'static str) -> Broken {
        Broken::At { at: self.at, what }
    }

    /// One opcode; the top value when it was the last.
    fn step(&mut self) -> Result<Option<Index>, Broken> {
        match self.byte()? {
            b'.' => {
                let top = self.pop()?;
                if !self.stack.is_empty() || !self.marks.is_empty() {
                    return Err(self.broken("values are left over"));
                }
                return Ok(Some(top));
            }
            0x80 => {
                if self.byte()? > 5 {
                    return Err(self.broken("a protocol that is not known"));
                }
            }
            0x95 => {
                let length = self.length(8)?;
                if length > self.input.len() - self.at {
                    return Err(self.broken("a frame that is not whole"));
                }
            }
            code @ (b'(' | b'0' | b'1' | b'2') => self.stack_only(code)?,
            code @ (b'N' | 0x88 | 0x89 | b'I' | b'L' | b'J' | b'K' | b'M' | 0x8a | 0x8b | b'F'
            | b'G') => {
                let node = self.number(code)?;
                self.push(node)?;
            }
            code @ (b'S' | b'T' | b'U' | b'V' | b'X' | 0x8c | 0x8d | b'B' | b'C' | 0x8e | 0x96) => {
                let range = self.text(code)?;
                let node = self.text_node(range)?;
                self.push(node)?;
            }
            code @ (b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j') => self.memo(code)?,
            code @ (b')' | b't' | 0x85 | 0x86 | 0x87) => self.tuple(code)?,
            code @ (b'}' | b'd' | b's' | b'u') => self.dict(code)?,
            code @ (b']' | b'l' | b'a' | b'e' | 0x8f | 0x90 | 0x91) => self.collection(code)?,
            code @ (b'c' | 0x93 | b'i' | b'o' | b'R' | b'b' | 0x81 | 0x92) => self.object(code)?,
            code @ (b'P' | b'Q' | 0x82 | 0x83 | 0x84) => self.foreign(code)?,
            // Out-of-band buffers (0x97, 0x98) cannot stand in a value by itself.
            _ => return Err(self.broken("an opcode that is not known")),
        }
        Ok(None)
    }

    // ---- input

    fn byte(&mut self) -> Result<u8, Broken> {
        Ok(self.fixed::<1>()?[0])
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (bytes, _) = self.input[self.at..]
            .split_first_chunk::<N>()
            .ok_or_else(|| self.broken("the end comes too early"))?;
        self.at += N;
        Ok(*bytes)
    }

    /// A length of 1, 4 or 8 bytes.
    fn length(&mut self, width: usize) -> Result<usize, Broken> {
        let length = match width {
            1 => u64::from(self.byte()?),
            4 => u64::from(u32::from_le_bytes(self.fixed()?)),
            _ => u64::from_le_bytes(self.fixed()?),
        };
        usize::try_from(length).map_err(|_| self.broken("a length that cannot be"))
    }

    fn counted(&mut self, width: usize) -> Result<Range<usize>, Broken> {
        let length = self.length(width)?;
        if length > self.input.len() - self.at {
            return Err(self.broken("a text that is not whole"));
        }
        let from = self.at;
        self.at += length;
        Ok(from..self.at)
    }

    /// Up to the end of the line, which is passed.
    fn line(&mut self) -> Result<Range<usize>, Broken> {
        let from = self.at;
        let length = self.input[from..]
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(|| self.broken("a line without end"))?;
        self.at += length + 1;
        Ok(from..from + length)
    }

    // ---- values

    fn add(&mut self, node: Node) -> Result<Index, Broken> {
        let index = self.nodes.len() as Index;
        keep(&mut self.nodes, node)?;
        Ok(index)
    }

    fn push(&mut self, node: Node) -> Result<(), Broken> {
        let index = self.add(node)?;
        keep(&mut self.stack, index)
    }

    /// What stands above the last mark.
    fn floor(&self) -> usize {
        self.marks.last().map_or(0, |mark| *mark as usize)
    }

    fn pop(&mut self) -> Result<Index, Broken> {
        if self.stack.len() <= self.floor() {
            return Err(self.broken("a value that is not there"));
        }
        self.stack
            .pop()
            .ok_or_else(|| self.broken("a value that is not there"))
    }

    fn last(&self) -> Result<Index, Broken> {
        if self.stack.len() <= self.floor() {
            return Err(self.broken("a value that is not there"));
        }
        Ok(self.stack[self.stack.len() - 1])
    }

    /// Takes the last mark away; where the values above it begin.
    fn mark(&mut self) -> Result<usize, Broken> {
        let mark = self.marks.pop();
        mark.map(|mark| mark as usize)
            .ok_or_else(|| self.broken("a mark that is not there"))
    }

    fn node(&self, index: Index) -> Node {
        self.nodes[index as usize]
    }

    fn node_text(&self, index: Index) -> Option<&[u8]> {
        match self.node(index) {
            Node::Text { from, to } => Some(&self.input[from as usize..to as usize]),
            _ => None,
        }
    }

    fn text_node(&self, range: Range<usize>) -> Result<Node, Broken> {
        let (Ok(from), Ok(to)) = (u32::try_from(range.start), u32::try_from(range.end)) else {
            return Err(self.broken("longer than 4 GiB"));
        };
        Ok(Node::Text { from, to })
    }

    // ---- opcodes

    fn stack_only(&mut self, code: u8) -> Result<(), Broken> {
        match code {
            b'(' => keep(&mut self.marks, self.stack.len() as Index)?,
            b'2' => {
                let last = self.last()?;
                keep(&mut self.stack, last)?;
            }
            b'1' => {
                let from = self.mark()?;
                self.stack.truncate(from);
            }
            // POP takes a mark away where there is no value above it.
            _ if !self.marks.is_empty() && self.floor() == self.stack.len() => {
                self.marks.pop();
            }
            _ => {
                self.pop()?;
            }
        }
        Ok(())
    }

    fn number(&mut self, code: u8) -> Result<Node, Broken> {
        Ok(match code {
            b'N' => Node::None,
            b'J' => Node::Int(i32::from_le_bytes(self.fixed()?).into()),
            b'K' => Node::Int(self.byte()?.into()),
            b'M' => Node::Int(u16::from_le_bytes(self.fixed()?).into()),
            b'G' => Node::Float(f64::from_be_bytes(self.fixed()?)),
            b'I' | b'L' | b'F' => {
                let line = self.line()?;
                let text = std::str::from_utf8(&self.input[line])
                    .map_err(|_| self.broken("not a number"))?;
                let text = text.trim();
                match code {
                    b'F' => Node::Float(text.parse().map_err(|_| self.broken("not a number"))?),
                    // Written so by protocol 0 and 1 for False and True.
                    _ if text == "00" || text == "01" => Node::Opaque,
                    _ => {
                        let digits = text.strip_suffix('L').unwrap_or(text);
                        let body = digits.strip_prefix('-').unwrap_or(digits);
                        if body.is_empty() || !body.bytes().all(|byte| byte.is_ascii_digit()) {
                            return Err(self.broken("not a number"));
                        }
                        digits.parse().map_or(Node::Opaque, Node::Int)
                    }
                }
            }
            0x8a | 0x8b => {
                let range = self.counted(if code == 0x8a { 1 } else { 4 })?;
                let bytes = &self.input[range];
                let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                let mut whole = if negative { [0xff; 8] } else { [0; 8] };
                match whole.get_mut(..bytes.len()) {
                    Some(low) => {
                        low.copy_from_slice(bytes);
                        Node::Int(i64::from_le_bytes(whole))
                    }
                    None => Node::Opaque,
                }
            }
            // True and False: no number that a store keeps.
            _ => Node::Opaque,
        })
    }

    fn text(&mut self, code: u8) -> Result<Range<usize>, Broken> {
        match code {
            b'V' => self.line(),
            b'S' => {
                let line = self.line()?;
                let bytes = &self.input[line.clone()];
                let quoted = bytes.len() >= 2
                    && matches!(bytes[0], b'\'' | b'"')
                    && bytes[bytes.len() - 1] == bytes[0];
                if !quoted {
                    return Err(self.broken("a text without quotes"));
                }
                Ok(line.start + 1..line.end - 1)
            }
            b'U' | 0x8c | b'C' => self.counted(1),
            0x8d | 0x8e | 0x96 => self.counted(8),
            _ => self.counted(4),
        }
    }

    fn memo(&mut self, code: u8) -> Result<(), Broken> {
        let slot = match code {
            b'p' | b'g' => {
                let line = self.line()?;
                std::str::from_utf8(&self.input[line])
                    .ok()
                    .and_then(|text| text.trim().parse::<u64>().ok())
                    .ok_or_else(|| self.broken("not a place in the memo"))?
            }
            b'q' | b'h' => u64::from(self.byte()?),
            b'r' | b'j' => u64::from(u32::from_le_bytes(self.fixed()?)),
            // MEMOIZE counts.
            _ => self.memoized as u64,
        };
        let slot = usize::try_from(slot).map_err(|_| Broken::TooMany)?;
        if matches!(code, b'g' | b'h' | b'j') {
            let index = self.memo.get(slot).copied().flatten();
            let index = index.ok_or_else(|| self.broken("nothing at that place of the memo"))?;
            return keep(&mut self.stack, index);
        }
        let last = self.last()?;
        if slot >= MOST {
            return Err(Broken::TooMany);
        }
        if self.memo.len() <= slot {
            self.memo.resize(slot + 1, None);
        }
        if self.memo[slot].replace(last).is_none() {
            self.memoized += 1;
        }
        Ok(())
    }

    fn tuple(&mut self, code: u8) -> Result<(), Broken> {
        let from = match code {
            b')' => self.stack.len(),
            b't' => self.mark()?,
            _ => {
                let count = usize::from(code - 0x84);
                let from = self.stack.len().checked_sub(count);
                from.filter(|from| *from >= self.floor())
                    .ok_or_else(|| self.broken("a value that is not there"))?
            }
        };
        let values = &self.stack[from..];
        let node = Node::Tuple([0, 1, 2].map(|at| values.get(at).copied()));
        self.stack.truncate(from);
        self.push(node)
    }

    fn dict(&mut self, code: u8) -> Result<(), Broken> {
        match code {
            b'}' => self.push(Node::Dict),
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                let dict = self.last()?;
                self.set(dict, key, value)
            }
            _ => {
                let from = self.mark()?;
                let end = self.stack.len();
                if !(end - from).is_multiple_of(2) {
                    return Err(self.broken("a key without value"));
                }
                let dict = if code == b'd' {
                    self.add(Node::Dict)?
                } else {
                    match from.checked_sub(1) {
                        Some(at) if from > self.floor() => self.stack[at],
                        _ => return Err(self.broken("a value that is not there")),
                    }
                };
                for at in (from..end).step_by(2) {
                    self.set(dict, self.stack[at], self.stack[at + 1])?;
                }
                self.stack.truncate(from);
                if code == b'd' {
                    keep(&mut self.stack, dict)?;
                }
                Ok(())
            }
        }
    }

    fn set(&mut self, dict: Index, key: Index, value: Index) -> Result<(), Broken> {
        // Items of what is no plain dictionary (`OrderedDict()`) go where they cannot be mistaken.
        if matches!(self.node(dict), Node::Dict) {
            keep(&mut self.entries, Entry { dict, key, value })?;
        }
        Ok(())
    }

    /// Lists and sets: what stands in them is not needed.
    fn collection(&mut self, code: u8) -> Result<(), Broken> {
        match code {
            b'a' => {
                self.pop()?;
                self.last()?;
                Ok(())
            }
            b'e' | 0x90 => {
                let from = self.mark()?;
                self.stack.truncate(from);
                self.last()?;
                Ok(())
            }
            b'l' | 0x91 => {
                let from = self.mark()?;
                self.stack.truncate(from);
                self.push(Node::Opaque)
            }
            _ => self.push(Node::Opaque),
        }
    }

    fn object(&mut self, code: u8) -> Result<(), Broken> {
        match code {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let callable = Callable::named(&self.input[module], &self.input[name]);
                self.push(callable.map_or(Node::Opaque, Node::Callable))
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let callable = match (self.node_text(module), self.node_text(name)) {
                    (Some(module), Some(name)) => Callable::named(module, name),
                    _ => None,
                };
                self.push(callable.map_or(Node::Opaque, Node::Callable))
            }
            b'R' => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                let made = match (self.node(callable), self.node(arguments)) {
                    (Node::Callable(callable), Node::Tuple(arguments)) => call(
                        self.input,
                        callable,
                        arguments.map(|index| index.map(|at| self.node(at))),
                    ),
                    _ => None,
                };
                self.push(made.unwrap_or(Node::Opaque))
            }
            b'b' => {
                self.pop()?;
                self.last()?;
                Ok(())
            }
            b'i' | b'o' => {
                if code == b'i' {
                    self.line()?;
                    self.line()?;
                }
                let from = self.mark()?;
                self.stack.truncate(from);
                self.push(Node::Opaque)
            }
            _ => {
                for _ in 0..if code == 0x81 { 2 } else { 3 } {
                    self.pop()?;
                }
                self.push(Node::Opaque)
            }
        }
    }

    /// Persistent ids and the extension registry: known to the program that wrote them alone.
    fn foreign(&mut self, code: u8) -> Result<(), Broken> {
        match code {
            b'P' => {
                self.line()?;
            }
            b'Q' => {
                self.pop()?;
            }
            0x82 => {
                self.byte()?;
            }
            0x83 => {
                self.fixed::<2>()?;
            }
            _ => {
                self.fixed::<4>()?;
            }
        }
        self.push(Node::Opaque)
    }
}
