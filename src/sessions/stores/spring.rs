//! Spring Session: one hash for a session, and what stands beside it.
//!
//! `RedisIndexedSessionRepository` keeps, for a namespace `<ns>` (`spring:session` unless configured):
//!
//! | key | what |
//! | --- | --- |
//! | `<ns>:sessions:<id>` | a hash: the session. Its TTL is the interval and five minutes |
//! | `<ns>:sessions:expires:<id>` | an empty string, the marker. Its TTL is the interval; its end makes the event |
//! | `<ns>:expirations:<minute>` | a set of `expires:<id>`: what ends in the minute before |
//! | `<ns>:sessions:expirations` | a sorted set of ids by their ends, in the place of the sets above where so configured |
//! | `<ns>:index:….PRINCIPAL_NAME_INDEX_NAME:<name>` | a set of ids: who has which sessions. Without TTL |
//!
//! `RedisSessionRepository` keeps the hash alone. Fields and members are serialised alike: by the JDK unless
//! JSON is configured. The trap: while the marker stands the session is live, whatever the hash says.

use std::time::Duration;

use crate::sessions::facts::{OwnTimeout, Times, Unreadable};

/// `RedisIndexedSessionRepository` keeps a session's hash for so long after its end, for the event to read.
pub(super) const MARGIN: Duration = Duration::from_secs(300);

/// The name of the index of principals, in keys and in fields.
const PRINCIPAL: &str =
    "org.springframework.session.FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME";

/// The fields that are read, in the order in which [`read`] and [`companions`] want their values.
pub(super) const FIELDS: [&[u8]; 4] = [
    b"creationTime",
    b"lastAccessedTime",
    b"maxInactiveInterval",
    b"sessionAttr:org.springframework.session.FindByIndexNameSessionRepository.PRINCIPAL_NAME_INDEX_NAME",
];

/// What a serialised `java.lang.Long` begins with; eight bytes follow (Java Object Serialization, protocol version 5).
const JDK_LONG: &[u8] =
    b"\xac\xed\0\x05sr\0\x0ejava.lang.Long;\x8b\xe4\x90\xcc\x8f#\xdf\x02\0\x01J\0\x05value\
    xr\0\x10java.lang.Number\x86\xac\x95\x1d\x0b\x94\xe0\x8b\x02\0\0xp";
/// The same of a `java.lang.Integer`, with four bytes.
const JDK_INTEGER: &[u8] =
    b"\xac\xed\0\x05sr\0\x11java.lang.Integer\x12\xe2\xa0\xa4\xf7\x81\x878\x02\0\x01I\0\x05value\
    xr\0\x10java.lang.Number\x86\xac\x95\x1d\x0b\x94\xe0\x8b\x02\0\0xp";
/// The same of a `String` of up to 65535 bytes: two bytes of length follow, and the text.
const JDK_STRING: &[u8] = b"\xac\xed\0\x05t";

/// What stands beside a session and goes with it.
///
/// For a deletion, in one step on the server: while [`marker`](Companions::marker) exists nothing is deleted, for the session is
/// live. Otherwise the session goes, and then each of [`removals`](Companions::removals). Members that are not there, and keys that
/// are not there, are as they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companions {
    /// The key that exists as long as the session is live: `<ns>:sessions:expires:<id>`.
    pub marker: Vec<u8>,
    /// What to take out of the indexes.
    pub removals: Vec<Removal>,
}

/// One member to take out of one index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// The key of the index.
    pub key: Vec<u8>,
    /// The member, as it is stored.
    pub member: Vec<u8>,
    /// Of what type the index is. A key of another type is left as it is.
    pub from: Collection,
}

/// The type of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collection {
    /// A set: SREM.
    Set,
    /// A sorted set: ZREM.
    SortedSet,
}

/// Namespace and id of a session's key; `None` when its name is of something beside sessions.
pub(super) fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    const BETWEEN: &[u8] = b":sessions:";
    // The name of a principal ends the key of its index, and may be anything.
    let index = [b":index:".as_slice(), PRINCIPAL.as_bytes()].concat();
    if key.windows(index.len()).any(|part| part == index) {
        return None;
    }
    let at = key
        .windows(BETWEEN.len())
        .rposition(|part| part == BETWEEN)?;
    let (namespace, id) = (&key[..at], &key[at + BETWEEN.len()..]);
    // `expires:<id>`, `index:…` and `<id>:idx` have a colon.
    let session = !namespace.is_empty() && !id.is_empty() && !id.contains(&b':');
    (session && id != b"expirations").then_some((namespace, id))
}

/// Reads the values of [`FIELDS`].
pub(super) fn read(values: &[Option<&[u8]>]) -> Result<Times, Unreadable> {
    let value = |at: usize| values.get(at).copied().flatten();
    let number = |at: usize| match value(at) {
        None => Ok(None),
        Some(bytes) => whole(bytes).map(Some).ok_or(Unreadable::Format),
    };
    let (created_ms, last_access_ms, interval) = (number(0)?, number(1)?, number(2)?);
    if created_ms.is_none() && last_access_ms.is_none() && interval.is_none() {
        return Err(Unreadable::NotASession);
    }
    let timeout = match interval.map(u64::try_from) {
        None => OwnTimeout::Unknown,
        Some(Err(_)) => OwnTimeout::Never,
        Some(Ok(seconds)) => OwnTimeout::After(Duration::from_secs(seconds)),
    };
    Ok(Times {
        created_ms,
        last_access_ms,
        ends_ms: end_ms(last_access_ms, interval)
            .map(|end| end.saturating_add(MARGIN.as_millis() as i64)),
        timeout,
    })
}

/// When a session is over: after the interval, which no margin prolongs.
fn end_ms(last_access_ms: Option<i64>, interval: Option<i64>) -> Option<i64> {
    let interval = interval.filter(|seconds| *seconds >= 0)?;
    Some(last_access_ms?.saturating_add(interval.saturating_mul(1000)))
}

/// What goes with a session. `values` are those of [`FIELDS`] of its hash.
///
/// The principal is taken from its own field. With Spring Security it stands in the serialised security
/// context alone, which is not read: its index then keeps an id that leads nowhere, and the framework passes over it.
pub(super) fn companions(key: &[u8], values: &[Option<&[u8]>]) -> Option<Companions> {
    const MINUTE_MS: i64 = 60_000;
    let (namespace, id) = split(key)?;
    let value = |at: usize| values.get(at).copied().flatten();
    let form = Form::of(values);
    let mut removals = Vec::new();
    let mut remove = |index: Vec<u8>, member: &[u8], from: Collection| {
        removals.extend(form.members(member).into_iter().map(|member| Removal {
            key: index.clone(),
            member,
            from,
        }));
    };
    let last_access_ms = value(1).and_then(whole);
    if let Some(end) = end_ms(last_access_ms, value(2).and_then(whole)) {
        let minute = (end.div_euclid(MINUTE_MS).saturating_add(1)).saturating_mul(MINUTE_MS);
        remove(
            [namespace, b":expirations:", minute.to_string().as_bytes()].concat(),
            &[b"expires:", id].concat(),
            Collection::Set,
        );
    }
    if let Some(principal) = value(3).and_then(text) {
        let name = [PRINCIPAL, ":", &principal].concat();
        remove(
            [namespace, b":index:", name.as_bytes()].concat(),
            id,
            Collection::Set,
        );
    }
    let by_end = [namespace, b":sessions:expirations"].concat();
    remove(by_end.clone(), id, Collection::SortedSet);
    // Its operations are the application's own, and may write plain text where the hash is serialised.
    removals.push(Removal {
        key: by_end,
        member: id.to_vec(),
        from: Collection::SortedSet,
    });
    Some(Companions {
        marker: [namespace, b":sessions:expires:", id].concat(),
        removals,
    })
}

/// How a repository serialises what it stores.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Jdk,
    Json,
    /// The session's fields do not tell.
    Unknown,
}

impl Form {
    fn of(values: &[Option<&[u8]>]) -> Form {
        let first = values
            .iter()
            .copied()
            .flatten()
            .find_map(|value| value.first());
        match first {
            Some(0xac) => Form::Jdk,
            Some(_) => Form::Json,
            None => Form::Unknown,
        }
    }

    /// A text as it is stored.
    fn members(self, text: &[u8]) -> Vec<Vec<u8>> {
        let jdk = || {
            let length = u16::try_from(text.len()).ok()?;
            Some([JDK_STRING, &length.to_be_bytes(), text].concat())
        };
        let json = || serde_json::to_vec(std::str::from_utf8(text).ok()?).ok();
        let forms = match self {
            Form::Jdk => [jdk(), None],
            Form::Json => [json(), None],
            Form::Unknown => [jdk(), json()],
        };
        forms.into_iter().flatten().collect()
    }
}

/// A whole number, serialised by the JDK or as JSON: `5`, or `["java.lang.Long",5]`.
fn whole(bytes: &[u8]) -> Option<i64> {
    if let Some(rest) = bytes.strip_prefix(JDK_LONG) {
        return Some(i64::from_be_bytes(rest.try_into().ok()?));
    }
    if let Some(rest) = bytes.strip_prefix(JDK_INTEGER) {
        return Some(i32::from_be_bytes(rest.try_into().ok()?).into());
    }
    if let Ok(number) = serde_json::from_slice::<i64>(bytes) {
        return Some(number);
    }
    let (class, number) = serde_json::from_slice::<(&str, i64)>(bytes).ok()?;
    matches!(class, "java.lang.Long" | "java.lang.Integer").then_some(number)
}

/// A text, serialised by the JDK or as JSON.
fn text(bytes: &[u8]) -> Option<String> {
    if let Some(rest) = bytes.strip_prefix(JDK_STRING) {
        let (length, text) = rest.split_first_chunk::<2>()?;
        // The JDK's modified UTF-8 is UTF-8 but for NUL and what lies beyond the basic plane: no UTF-8 at all there.
        let whole = usize::from(u16::from_be_bytes(*length)) == text.len();
        return String::from_utf8(text.to_vec()).ok().filter(|_| whole);
    }
    serde_json::from_slice(bytes).ok()
}
