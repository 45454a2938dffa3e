//! A number for a value's content, whatever its encoding.
//!
//! Elements that have an order are chained; those that have none are added up, each as a number of its own that mixes all
//! of its parts. It tells accidents apart, not the work of somebody who wants two contents to look alike.

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use super::super::types::LogicalType;
use super::{Element, StreamId};

/// Whether the expiries of single fields are part of a hash's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldExpiries {
    /// They are.
    Count,
    /// They are not: they were left out on purpose.
    Ignored,
}

/// Sums up elements: equal for equal contents, whichever server wrote them and in whatever order a set, a hash or a
/// sorted set was kept.
///
/// A score of −0 is as one of 0. Of a stream the entries, its last ID, its groups with their last IDs and their pending entries with owner, time and
/// count are content; the times of consumers, consumers without pending entries, and what servers before 7.0 do not know
/// are not.
#[derive(Clone, Debug)]
pub struct ContentDigest {
    logical: LogicalType,
    expiries: FieldExpiries,
    /// Elements that have no order.
    sum: u128,
    /// Elements that have one.
    chain: u128,
    elements: u64,
    group: u64,
    consumer: u64,
}

/// An odd number without a pattern.
const MIX: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

impl ContentDigest {
    /// Nothing yet.
    pub fn new(logical: LogicalType, expiries: FieldExpiries) -> ContentDigest {
        ContentDigest {
            logical,
            expiries,
            sum: 0,
            chain: mix(logical as u128 + 1),
            elements: 0,
            group: 0,
            consumer: 0,
        }
    }

    /// Adds the next element.
    pub fn element(&mut self, element: Element<'_>) {
        match element {
            Element::String(bytes) => self.ordered(xxh3_128_with_seed(bytes, 1)),
            // A set's members come in any order, a list's in theirs.
            Element::Item(item) => {
                let item = xxh3_128_with_seed(item, 2);
                match self.logical {
                    LogicalType::List => self.ordered(item),
                    _ => self.unordered(item),
                }
            }
            Element::Scored { member, score } => {
                // One NaN is as good as another; and from 7.0 on a small sorted set makes 0 of −0.
                let score = match score {
                    score if score.is_nan() => f64::NAN,
                    0.0 => 0.0,
                    score => score,
                };
                self.unordered(xxh3_128_with_seed(member, mix64(score.to_bits())));
            }
            Element::Field {
                field,
                value,
                expire_at_ms,
            } => {
                let at = match self.expiries {
                    FieldExpiries::Count => expire_at_ms.unwrap_or(0),
                    FieldExpiries::Ignored => 0,
                };
                let field = xxh3_64_with_seed(field, mix64(at.cast_unsigned()));
                self.unordered(xxh3_128_with_seed(value, field));
            }
            Element::Entry(entry) => {
                self.ordered(id(entry.id));
                for (field, value) in entry.fields.iter() {
                    self.ordered(xxh3_128_with_seed(field, 3));
                    self.ordered(xxh3_128_with_seed(value, 4));
                }
            }
            Element::Stream(facts) => self.ordered(id(facts.last_id)),
            Element::Group(group) => {
                self.group = xxh3_64_with_seed(group.name, 5);
                self.unordered(mix(u128::from(self.group)).wrapping_add(id(group.last_id)));
            }
            Element::Consumer(consumer) => {
                self.consumer = xxh3_64_with_seed(consumer.name, self.group);
            }
            Element::Owned(pending) => self.pending(pending, self.consumer),
            Element::Unowned(pending) => self.pending(pending, self.group),
            Element::GroupEnd => {}
            Element::Module(module) => self.ordered(u128::from(module.0)),
            // However it is cut into fragments.
            Element::ModuleBytes(bytes) => {
                for byte in bytes {
                    self.chain = (self.chain ^ u128::from(*byte)).wrapping_mul(MIX);
                }
            }
        }
    }

    /// The digest of the whole value.
    pub fn finish(&self) -> u128 {
        mix(self.chain ^ mix(self.sum.wrapping_add(u128::from(self.elements))))
    }

    fn pending(&mut self, pending: super::Pending, owner: u64) {
        let times =
            u128::from(pending.delivered_ms.cast_unsigned()) << 64 | u128::from(pending.deliveries);
        let parts = [id(pending.id), times, u128::from(owner)];
        self.unordered(parts.into_iter().fold(1, |sum, part| mix(sum ^ part)));
    }

    fn ordered(&mut self, element: u128) {
        self.elements += 1;
        self.chain = mix(self.chain.rotate_left(29) ^ element);
    }

    fn unordered(&mut self, element: u128) {
        self.elements += 1;
        self.sum = self.sum.wrapping_add(mix(element));
    }
}

fn id(id: StreamId) -> u128 {
    u128::from(id.ms) << 64 | u128::from(id.seq)
}

fn mix(value: u128) -> u128 {
    let value = (value ^ value >> 67).wrapping_mul(MIX);
    (value ^ value >> 59).wrapping_mul(MIX)
}

fn mix64(value: u64) -> u64 {
    mix(u128::from(value)) as u64
}
