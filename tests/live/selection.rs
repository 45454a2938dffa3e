//! Our globs against the servers' own.

use rdbkeeper::selection::KeyPattern;

use crate::cmd;
use crate::support::client::Reply;
use crate::support::data::Random;
use crate::support::servers::{self, Server};

#[test]
fn random_patterns_take_the_keys_that_the_server_takes() {
    let server = Server::start(servers::usual());
    let mut client = server.client();
    let mut random = Random::new(42);
    // Few letters, so that much matches; and everything that means something in a pattern.
    let letters = b"ab-]\\*^x\xe9";
    let mut keys: Vec<Vec<u8>> = Vec::new();
    for _ in 0..400 {
        let length = 1 + random.below(6);
        keys.push(
            (0..length)
                .map(|_| letters[random.below(letters.len())])
                .collect(),
        );
    }
    keys.sort();
    keys.dedup();
    client.run_all(keys.iter().map(|key| cmd!["SET", key, ""]).collect());
    let signs = b"ab-]\\*^x[[**??\xe9";
    let mut taken = 0;
    for _ in 0..4000 {
        let length = 1 + random.below(8);
        let pattern: Vec<u8> = (0..length)
            .map(|_| signs[random.below(signs.len())])
            .collect();
        // Ranges that cross from ASCII to beyond it are the one thing that is left to the platform there.
        if pattern
            .windows(3)
            .any(|three| three[1] == b'-' && three[0].is_ascii() != three[2].is_ascii())
        {
            continue;
        }
        let mut theirs: Vec<Vec<u8>> = client
            .run(cmd!["KEYS", &pattern])
            .array()
            .iter()
            .map(Reply::bytes)
            .collect();
        theirs.sort();
        let ours = KeyPattern::new(pattern.clone());
        let ours: Vec<Vec<u8>> = keys
            .iter()
            .filter(|key| ours.matches(key))
            .cloned()
            .collect();
        assert_eq!(ours, theirs, "{}", pattern.escape_ascii());
        taken += ours.len();
    }
    assert!(
        taken > 1000,
        "the patterns take too little to prove something"
    );
}
