#![allow(clippy::unwrap_used)]

use std::convert::Infallible;

use super::*;
use crate::rdb::value::{Consumer, Entry, Fields, Group, Pending, StreamFacts, StreamHistory};
use crate::rdb::{Family, FileVersion};

fn dialect(number: u16) -> Dialect {
    Dialect::of_rdb(FileVersion {
        family: Family::Redis,
        number,
    })
}

/// The commands of a value, each as one line.
fn lines(writer: &mut Writer, elements: &[Element<'_>]) -> (Vec<String>, Made) {
    let mut lines = Vec::new();
    let mut sink = |command: &[&[u8]]| {
        let words: Vec<String> = command
            .iter()
            .map(|word| word.escape_ascii().to_string())
            .collect();
        lines.push(words.join(" "));
        Ok::<(), Infallible>(())
    };
    for element in elements {
        writer.element(*element, &mut sink).unwrap();
    }
    let made = writer.finish(&mut sink).unwrap();
    assert_eq!(made.commands as usize, lines.len());
    (lines, made)
}

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId { ms, seq }
}

fn entry(ms: u64) -> Element<'static> {
    Element::Entry(Entry {
        id: id(ms, 1),
        fields: Fields::new(b"fv", &[1, 2]),
    })
}

#[test]
fn elements_go_in_batches_and_large_ones_alone() {
    let mut writer = Writer::new(dialect(11));
    writer.start(LogicalType::List, b"k", None, &[]);
    let items: Vec<String> = (0..2500).map(|item| item.to_string()).collect();
    let elements: Vec<Element<'_>> = items
        .iter()
        .map(|item| Element::Item(item.as_bytes()))
        .collect();
    let (commands, _) = lines(&mut writer, &elements);
    assert_eq!(commands.len(), 3);
    assert!(commands[0].starts_with("RPUSH k 0 1 2 "));
    assert!(commands[2].ends_with(" 2498 2499"));

    let large = vec![b'x'; BATCH_BYTES];
    writer.start(LogicalType::Set, b"k", None, &[]);
    let elements = [
        Element::Item(b"a"),
        Element::Item(&large),
        Element::Item(b"b"),
    ];
    let (commands, _) = lines(&mut writer, &elements);
    assert_eq!(commands[0], "SADD k a");
    assert_eq!(commands[1].len(), "SADD k ".len() + BATCH_BYTES);
    assert_eq!(commands[2], "SADD k b");
}

#[test]
fn scores_are_written_as_they_are_read_back() {
    for score in [
        0.1,
        -0.0,
        5e-324,
        1.797_693_134_862_315_7e308,
        9_007_199_254_740_993.0,
    ] {
        let back: f64 = score_text(score).parse().unwrap();
        assert_eq!(back.to_bits(), score.to_bits());
    }
    assert_eq!(score_text(f64::NEG_INFINITY), "-inf");
}

#[test]
fn fields_that_expire_are_told_after_their_batch_and_those_that_are_over_left_out() {
    let field = |field: &'static [u8], expire_at_ms| Element::Field {
        field,
        value: b"v",
        expire_at_ms,
    };
    let elements = [
        field(b"a", Some(300)),
        field(b"over", Some(200)),
        field(b"b", None),
        field(b"c", Some(201)),
        field(b"d", Some(300)),
    ];
    let mut writer = Writer::new(dialect(12));
    writer.start(LogicalType::Hash, b"k", Some(200), &[]);
    let (commands, made) = lines(&mut writer, &elements);
    assert_eq!(
        commands,
        [
            "HSET k a v b v c v d v",
            "HPEXPIREAT k 201 FIELDS 1 c",
            "HPEXPIREAT k 300 FIELDS 2 a d"
        ]
    );
    assert_eq!(made.lost.fields_over, 1);
    // A server that knows no such expiry.
    let mut writer = Writer::new(dialect(7));
    writer.start(LogicalType::Hash, b"k", Some(200), &[]);
    let (commands, made) = lines(&mut writer, &elements);
    assert_eq!(commands, ["HMSET k a v b v c v d v"]);
    assert_eq!(made.lost.field_expiries, 3);
    // Nothing is left of it.
    writer.start(LogicalType::Hash, b"k", Some(200), &[]);
    assert_eq!(lines(&mut writer, &elements[1..2]).1.commands, 0);
}

#[test]
fn what_is_longer_than_an_argument_is_left_out_and_a_string_comes_in_pieces() {
    let mut small = dialect(11);
    small.max_bulk = 4;
    let mut writer = Writer::new(small);
    writer.start(LogicalType::Set, b"k", None, &[]);
    let elements = [Element::Item(b"1234"), Element::Item(b"12345")];
    let (commands, made) = lines(&mut writer, &elements);
    assert_eq!(commands, ["SADD k 1234"]);
    assert_eq!(made.lost.too_large, 1);
    writer.start(LogicalType::String, b"k", None, &[]);
    let (commands, made) = lines(&mut writer, &[Element::String(b"123456789")]);
    assert_eq!(commands[..3], ["RPUSH k 1234", "RPUSH k 5678", "RPUSH k 9"]);
    assert!(commands[3].starts_with("EVAL ") && commands[3].ends_with(" 1 k"));
    assert_eq!(made.lost, Lost::default());
}

/// A stream with an entry that was deleted and one that was trimmed away, both pending.
fn haunted() -> Vec<Element<'static>> {
    let owned = |ms, deliveries| {
        Element::Owned(Pending {
            id: id(ms, 1),
            delivered_ms: 900,
            deliveries,
        })
    };
    vec![
        entry(5),
        entry(7),
        Element::Stream(StreamFacts {
            length: 2,
            last_id: id(9, 1),
            since_7: Some(StreamHistory {
                first_id: id(5, 1),
                max_deleted_id: id(6, 1),
                entries_added: 5,
            }),
        }),
        Element::Group(Group {
            name: b"g",
            last_id: id(7, 1),
            entries_read: Some(4),
        }),
        Element::Consumer(Consumer {
            name: b"c",
            seen_ms: 0,
            active_ms: None,
        }),
        owned(3, 1),
        owned(5, 1),
        owned(6, 2),
        Element::GroupEnd,
    ]
}

#[test]
fn a_stream_comes_with_its_history_its_groups_and_what_is_pending_of_deleted_entries() {
    let mut ghosts = Ghosts::new();
    for element in haunted() {
        ghosts.element(element);
    }
    let (ghosts, lost) = ghosts.finish();
    assert_eq!((ghosts.as_slice(), lost), (&[id(3, 1), id(6, 1)][..], 0));
    let mut writer = Writer::new(dialect(11));
    writer.start(LogicalType::Stream, b"k", None, &ghosts);
    let (commands, _) = lines(&mut writer, &haunted());
    assert_eq!(
        commands,
        [
            "XADD k 3-1  ",
            "XADD k 5-1 f v",
            "XADD k 6-1  ",
            "XADD k 7-1 f v",
            "XSETID k 9-1 ENTRIESADDED 5 MAXDELETEDID 6-1",
            "XGROUP CREATE k g 7-1 ENTRIESREAD 4",
            "XGROUP CREATECONSUMER k g c",
            "XCLAIM k g c 0 3-1 5-1 TIME 900 RETRYCOUNT 1 FORCE JUSTID",
            "XCLAIM k g c 0 6-1 TIME 900 RETRYCOUNT 2 FORCE JUSTID",
            "XTRIM k MAXLEN 3",
            "XDEL k 6-1",
        ]
    );
    let mut writer = Writer::new(dialect(9));
    writer.start(LogicalType::Stream, b"k", None, &ghosts);
    let (commands, _) = lines(&mut writer, &haunted());
    assert_eq!(
        commands[4..7],
        [
            "XSETID k 9-1",
            "XGROUP CREATE k g 7-1",
            "XREADGROUP GROUP g c COUNT 1 STREAMS k 0"
        ]
    );
}

#[test]
fn an_empty_stream_is_made_by_a_group_that_goes_again() {
    let empty = |last_id| {
        [Element::Stream(StreamFacts {
            length: 0,
            last_id,
            since_7: None,
        })]
    };
    let mut writer = Writer::new(dialect(11));
    writer.start(LogicalType::Stream, b"k", None, &[]);
    let (commands, _) = lines(&mut writer, &empty(id(4, 2)));
    assert_eq!(
        commands,
        [
            "XGROUP CREATE k rdbkeeper 0-0 MKSTREAM",
            "XGROUP DESTROY k rdbkeeper",
            "XSETID k 4-2 ENTRIESADDED 0 MAXDELETEDID 0-0"
        ]
    );
    writer.start(LogicalType::Stream, b"k", None, &[]);
    assert_eq!(lines(&mut writer, &empty(id(0, 0))).0.len(), 2);
}

#[test]
fn ghosts_are_found_among_entries_of_all_kinds_of_ids() {
    let ids: Vec<StreamId> = [(1, 1), (1, 7), (2, 0), (1 << 41, 5), (u64::MAX, u64::MAX)]
        .map(|(ms, seq)| id(ms, seq))
        .to_vec();
    let mut ghosts = Ghosts::new();
    for id in &ids {
        ghosts.element(Element::Entry(Entry {
            id: *id,
            fields: Fields::new(b"", &[]),
        }));
    }
    for _ in 0..2 {
        for pending in ids
            .iter()
            .copied()
            .chain([id(0, 9), id(1, 6), id(1 << 41, 4)])
        {
            ghosts.element(Element::Owned(Pending {
                id: pending,
                delivered_ms: 0,
                deliveries: 0,
            }));
        }
        ghosts.element(Element::GroupEnd);
    }
    let (found, lost) = ghosts.finish();
    assert_eq!((found, lost), (vec![id(0, 9), id(1, 6), id(1 << 41, 4)], 0));
}
