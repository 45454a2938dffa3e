//! Random values are made on a server by plain commands and come back in the server's own encoding: the same content.

use std::convert::Infallible;

use rdbkeeper::rdb::payload::Payload;
use rdbkeeper::rdb::value::{FieldExpiries, StreamFacts, StreamId};
use rdbkeeper::rdb::{FileVersion, LogicalType};
use rdbkeeper::target::commands::{Dialect, Ghosts, Lost, Writer};

use crate::cmd;
use crate::support::client::Command;
use crate::support::elements::{Owned, decoded, digest};
use crate::support::servers::{Server, each};
use crate::values::random::{CASES, random_value};

/// The commands that make a value, and what is left out of it.
fn commands(dialect: Dialect, logical: LogicalType, elements: &[Owned]) -> (Vec<Command>, Lost) {
    let mut ghosts = Ghosts::new();
    for element in elements {
        element.lend(&mut |element| ghosts.element(element));
    }
    let (ghosts, lost) = ghosts.finish();
    assert_eq!(lost, 0);
    let mut commands: Vec<Command> = Vec::new();
    let mut sink = |words: &[&[u8]]| {
        commands.push(words.iter().map(|word| word.to_vec()).collect());
        Ok::<(), Infallible>(())
    };
    let mut writer = Writer::new(dialect);
    writer.start(logical, b"key", None, &ghosts);
    for element in elements {
        element.lend(&mut |element| {
            let Ok(()) = writer.element(element, &mut sink);
        });
    }
    let Ok(made) = writer.finish(&mut sink);
    (commands, made.lost)
}

/// The greatest ID that was deleted, and how many entries were added.
type History = (StreamId, u64);

/// What a stream knows of itself, without what the server works out.
fn facts(elements: &[Owned], with_history: bool) -> Option<(u64, StreamId, Option<History>)> {
    elements.iter().find_map(|element| match element {
        Owned::Stream(StreamFacts {
            length,
            last_id,
            since_7,
        }) => {
            let history = since_7.filter(|_| with_history);
            let history = history.map(|known| (known.max_deleted_id, known.entries_added));
            Some((*length, *last_id, history))
        }
        _ => None,
    })
}

#[test]
fn values_made_by_plain_commands_come_back_from_a_server_as_the_same() {
    each(|kind| {
        let server = Server::start(kind);
        let mut client = server.client();
        let own = FileVersion::of_number(kind.rdb_version());
        let dialect = Dialect::of_rdb(own);
        for case in 0..CASES {
            let seed = 0x0dec_0ded + case * 104_729 + u64::from(own.number);
            let (logical, elements) = random_value(seed, case, kind.has_hash_field_expiry());
            let what = format!("seed {seed}: a {logical} by commands");
            let (commands, lost) = commands(dialect, logical, &elements);
            assert_eq!(lost, Lost::default(), "{what}");
            client.run(cmd!["DEL", "key"]);
            client.run_all(commands);
            let dumped = client.run(cmd!["DUMP", "key"]).bytes();
            let dumped = Payload::parse(&dumped).unwrap_or_else(|e| panic!("{what}: {e}"));
            let again = decoded(dumped.value_type.unwrap(), dumped.value, usize::MAX)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let history = dialect.stream_history;
            assert_eq!(facts(&again, history), facts(&elements, history), "{what}");
            let [before, after] =
                [&elements, &again].map(|elements| digest(logical, elements, FieldExpiries::Count));
            assert_eq!(before, after, "{what}: {elements:?} is {again:?}");
        }
    });
}
