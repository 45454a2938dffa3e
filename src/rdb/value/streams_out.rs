//! A stream's elements become its nodes and groups.
//!
//! Entries are gathered into listpacks of the size that servers make by default. A group's pending entries must stand before
//! its consumers, so one group is kept until it ends.

use super::super::length;
use super::super::packed::ListpackWriter;
use super::Element;
use super::stream::{Entry, Group, Pending, StreamFacts, StreamHistory, StreamId};

/// A node has about so many bytes at most: `stream-node-max-bytes`.
const NODE_BYTES: usize = 4096;

/// A node has so many entries at most: `stream-node-max-entries`.
const NODE_ENTRIES: u64 = 100;

/// The entry is of the usual fields.
const SAME_FIELDS: i64 = 2;

/// Makes streams of the layouts 15, 19 and 21.
#[derive(Debug)]
pub(super) struct StreamEncoder {
    code: u8,
    nodes: Vec<u8>,
    node_count: u64,
    node: Option<Node>,
    first_id: Option<StreamId>,
    facts: StreamFacts,
    groups: Vec<u8>,
    group_count: u64,
    group: GroupParts,
}

/// A node in the making.
#[derive(Debug)]
struct Node {
    id: StreamId,
    /// The names of the fields of its first entry.
    names: Vec<Vec<u8>>,
    entries: u64,
    body: ListpackWriter,
}

#[derive(Debug, Default)]
struct GroupParts {
    pending: Vec<Pending>,
    consumers: Vec<u8>,
    consumer_count: u64,
    owned: Vec<u8>,
    owned_count: u64,
    in_consumer: bool,
}

impl StreamEncoder {
    pub(super) fn new(code: u8) -> StreamEncoder {
        StreamEncoder {
            code,
            nodes: Vec::new(),
            node_count: 0,
            node: None,
            first_id: None,
            facts: StreamFacts::default(),
            groups: Vec::new(),
            group_count: 0,
            group: GroupParts::default(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let node = self.node.as_ref().map_or(0, |node| node.body.len());
        let group = self.group.consumers.len() + self.group.owned.len();
        self.nodes.len() + node + self.groups.len() + group + 24 * self.group.pending.len()
    }

    pub(super) fn element(&mut self, element: Element<'_>) {
        match element {
            Element::Entry(entry) => self.entry(&entry),
            Element::Stream(facts) => self.facts = facts,
            Element::Group(group) => self.begin_group(&group),
            Element::Consumer(consumer) => {
                self.group.end_consumer();
                let group = &mut self.group;
                group.in_consumer = true;
                group.consumer_count += 1;
                length::encode_string(consumer.name, &mut group.consumers);
                group.consumers.extend(consumer.seen_ms.to_le_bytes());
                if self.code == 21 {
                    let active = consumer.active_ms.unwrap_or(-1);
                    group.consumers.extend(active.to_le_bytes());
                }
            }
            Element::Owned(pending) => {
                self.group.pending.push(pending);
                self.group.owned.extend(raw_id(pending.id));
                self.group.owned_count += 1;
            }
            // Those that no consumer has are known to no layout that is made here.
            Element::Unowned(_) => {}
            Element::GroupEnd => self.end_group(),
            _ => {}
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) {
        self.first_id.get_or_insert(entry.id);
        let full = self.node.as_ref().is_some_and(|node| {
            node.entries >= NODE_ENTRIES
                || node.body.len() >= NODE_BYTES
                // What is added to the node's ID must be a number of 64 bits with a sign.
                || offset(entry.id, node.id).is_none()
        });
        if full {
            self.end_node();
        }
        let node = self.node.get_or_insert_with(|| Node {
            id: entry.id,
            names: entry.fields.iter().map(|(name, _)| name.to_vec()).collect(),
            entries: 0,
            body: ListpackWriter::new(),
        });
        let usual = entry.fields.len() == node.names.len()
            && entry
                .fields
                .iter()
                .zip(&node.names)
                .all(|((name, _), usual)| name == usual);
        let (ms, seq) = offset(entry.id, node.id).unwrap_or_default();
        let body = &mut node.body;
        body.int(if usual { SAME_FIELDS } else { 0 });
        body.int(ms);
        body.int(seq);
        let pairs = entry.fields.len() as i64;
        let elements = if usual {
            entry.fields.iter().for_each(|(_, value)| body.bytes(value));
            3 + pairs
        } else {
            body.int(pairs);
            for (field, value) in entry.fields.iter() {
                body.bytes(field);
                body.bytes(value);
            }
            4 + 2 * pairs
        };
        body.int(elements);
        node.entries += 1;
    }

    fn end_node(&mut self) {
        let Some(mut node) = self.node.take() else {
            return;
        };
        let mut master = ListpackWriter::new();
        master.int(node.entries as i64);
        master.int(0);
        master.int(node.names.len() as i64);
        node.names.iter().for_each(|name| master.bytes(name));
        master.int(0);
        master.append(&mut node.body);
        length::encode_string(&raw_id(node.id), &mut self.nodes);
        length::encode_string(&master.finish(), &mut self.nodes);
        self.node_count += 1;
    }

    fn begin_group(&mut self, group: &Group<'_>) {
        self.group = GroupParts::default();
        self.group_count += 1;
        let out = &mut self.groups;
        length::encode_string(group.name, out);
        length::encode(group.last_id.ms, out);
        length::encode(group.last_id.seq, out);
        if self.code != 15 {
            length::encode(group.entries_read.unwrap_or(u64::MAX), out);
        }
    }

    fn end_group(&mut self) {
        let mut group = std::mem::take(&mut self.group);
        group.end_consumer();
        group.pending.sort_by_key(|pending| pending.id);
        let out = &mut self.groups;
        length::encode(group.pending.len() as u64, out);
        for pending in &group.pending {
            out.extend(raw_id(pending.id));
            out.extend(pending.delivered_ms.to_le_bytes());
            length::encode(pending.deliveries, out);
        }
        length::encode(group.consumer_count, out);
        out.append(&mut group.consumers);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.end_node();
        let mut out = Vec::with_capacity(self.nodes.len() + self.groups.len() + 128);
        length::encode(self.node_count, &mut out);
        out.append(&mut self.nodes);
        let facts = self.facts;
        length::encode(facts.length, &mut out);
        encode_id(facts.last_id, &mut out);
        if self.code != 15 {
            // What an older server did not know is what a newer one assumes when it loads such a stream.
            let history = facts.since_7.unwrap_or(StreamHistory {
                first_id: self.first_id.unwrap_or_default(),
                max_deleted_id: StreamId::default(),
                entries_added: facts.length,
            });
            encode_id(history.first_id, &mut out);
            encode_id(history.max_deleted_id, &mut out);
            length::encode(history.entries_added, &mut out);
        }
        length::encode(self.group_count, &mut out);
        out.append(&mut self.groups);
        out
    }
}

impl GroupParts {
    fn end_consumer(&mut self) {
        if std::mem::take(&mut self.in_consumer) {
            length::encode(self.owned_count, &mut self.consumers);
            self.consumers.append(&mut self.owned);
            self.owned_count = 0;
        }
    }
}

/// What leads from one ID to a later one, as a node keeps it.
fn offset(id: StreamId, from: StreamId) -> Option<(i64, i64)> {
    let ms = i64::try_from(id.ms.checked_sub(from.ms)?).ok()?;
    let seq = i64::try_from(i128::from(id.seq) - i128::from(from.seq)).ok()?;
    Some((ms, seq))
}

fn raw_id(id: StreamId) -> [u8; 16] {
    (u128::from(id.ms) << 64 | u128::from(id.seq)).to_be_bytes()
}

fn encode_id(id: StreamId, out: &mut Vec<u8>) {
    length::encode(id.ms, out);
    length::encode(id.seq, out);
}
