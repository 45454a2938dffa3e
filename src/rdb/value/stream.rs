//! What a stream consists of.

/// The ID of a stream's entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Unix time in milliseconds, by custom.
    pub ms: u64,
    /// Tells entries of one millisecond apart.
    pub seq: u64,
}

/// An entry of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    /// Its ID.
    pub id: StreamId,
    /// Its fields and values, in order; a field may occur twice.
    pub fields: Fields<'a>,
}

/// The fields and values of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    names: Parts<'a>,
    values: Parts<'a>,
}

/// Every so many of the strings in `bytes`, which stand one after the other.
#[derive(Clone, Copy, Debug)]
struct Parts<'a> {
    bytes: &'a [u8],
    /// Where each string ends.
    ends: &'a [usize],
    first: usize,
    step: usize,
}

impl<'a> Parts<'a> {
    fn get(&self, index: usize) -> &'a [u8] {
        let at = self.first + index * self.step;
        let start = match at {
            0 => 0,
            at => self.ends[at - 1],
        };
        &self.bytes[start..self.ends[at]]
    }
}

impl<'a> Fields<'a> {
    /// Fields and values in turn: `bytes` holds them one after the other, `ends` says where each ends.
    pub fn new(bytes: &'a [u8], ends: &'a [usize]) -> Fields<'a> {
        let ends = &ends[..ends.len() / 2 * 2];
        let part = |first| Parts {
            bytes,
            ends,
            first,
            step: 2,
        };
        Fields {
            names: part(0),
            values: part(1),
        }
    }

    /// Values whose names stand elsewhere, once for many entries. There are as many of the one as of the other.
    pub(super) fn with_names(
        (names, name_ends): (&'a [u8], &'a [usize]),
        (values, value_ends): (&'a [u8], &'a [usize]),
    ) -> Fields<'a> {
        let part = |bytes, ends| Parts {
            bytes,
            ends,
            first: 0,
            step: 1,
        };
        Fields {
            names: part(names, name_ends),
            values: part(values, value_ends),
        }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.values.ends.len() / self.values.step
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.ends.is_empty()
    }

    /// The pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let Fields { names, values } = *self;
        (0..self.len()).map(move |index| (names.get(index), values.get(index)))
    }
}

impl PartialEq for Fields<'_> {
    fn eq(&self, other: &Fields<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

/// What a stream knows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamFacts {
    /// How many entries it has.
    pub length: u64,
    /// The greatest ID that it ever gave.
    pub last_id: StreamId,
    /// What servers know from Redis 7.0 on.
    pub since_7: Option<StreamHistory>,
}

/// What a stream knows of what it no longer holds, from Redis 7.0 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamHistory {
    /// The ID of its first entry; 0-0 when it is empty.
    pub first_id: StreamId,
    /// The greatest ID of an entry that was deleted.
    pub max_deleted_id: StreamId,
    /// How many entries were ever added.
    pub entries_added: u64,
}

/// A consumer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The last entry that was handed out.
    pub last_id: StreamId,
    /// How many entries were handed out, where the server knew it (from Redis 7.0 on).
    pub entries_read: Option<u64>,
}

/// A consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// When it last tried anything, Unix time in milliseconds.
    pub seen_ms: i64,
    /// When it last got anything, Unix time in milliseconds; from Redis 7.2 on, and only if it ever did.
    pub active_ms: Option<i64>,
}

/// An entry that was handed out and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which.
    pub id: StreamId,
    /// When it was handed out last, Unix time in milliseconds.
    pub delivered_ms: i64,
    /// How often.
    pub deliveries: u64,
}
