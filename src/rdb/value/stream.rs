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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fields<'a> {
    /// All their bytes, one after the other.
    bytes: &'a [u8],
    /// Where each ends.
    ends: &'a [usize],
}

impl<'a> Fields<'a> {
    /// Fields and values in turn: `bytes` holds them one after the other, `ends` says where each ends.
    pub fn new(bytes: &'a [u8], ends: &'a [usize]) -> Fields<'a> {
        Fields { bytes, ends }
    }

    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.ends.len() / 2
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let (bytes, ends) = (self.bytes, self.ends);
        let mut start = 0;
        ends.chunks_exact(2).map(move |pair| {
            let field = &bytes[start..pair[0]];
            let value = &bytes[pair[0]..pair[1]];
            start = pair[1];
            (field, value)
        })
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
