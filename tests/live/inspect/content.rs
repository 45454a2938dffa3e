//! What `backup show` adds up.

use super::dumped;
use crate::cmd;
use crate::support::data::{Random, fill, sessions};
use crate::support::servers::usual;

#[test]
fn show_tells_types_prefixes_expiries_and_the_largest_keys_without_their_ids() {
    let (program, server, path) = dumped(usual(), |server| {
        let mut client = server.client();
        client.run_all(sessions(500));
        let token = "0123456789abcdef".repeat(4);
        let session = format!("websauna_session{token}");
        let noise = Random::new(3).bytes(9000);
        client.run(cmd!["SET", session, noise, "PX", 600_000]);
        for n in 0..40 {
            client.run(cmd!["SET", format!("cart:{n:032x}"), "v"]);
        }
        client.run(cmd!["RPUSH", "celery", "a", "b"]);
    });
    program.configure(&format!(
        "[[database]]\nname = \"web\"\nurl = \"{}\"\n",
        server.url()
    ));
    program.run(["backup", "now"]).expect(0);
    for selector in ["web", path.to_str().unwrap()] {
        let shown = program.json(["backup", "show", selector]).expect(0).json();
        let content = &shown["content"];
        let types = content["types"].as_array().unwrap();
        assert_eq!(types[0]["type"], "string");
        assert_eq!(types[0]["keys"], 541);
        assert_eq!(types[1]["type"], "list");
        assert_eq!(types[0]["expiry"]["none"], 40);
        assert_eq!(types[0]["expiry"]["under_1h"], 1);
        assert_eq!(types[0]["expiry"]["under_30d"], 500);
        let prefixes = content["prefixes"].as_array().unwrap();
        assert_eq!(prefixes[0]["prefix"], "websauna_session*");
        assert_eq!(prefixes[0]["keys"], 501);
        assert!(
            prefixes
                .iter()
                .any(|row| row["prefix"] == "cart:*" && row["keys"] == 40)
        );
        let largest = content["largest"].as_array().unwrap();
        assert_eq!(largest.len(), 10);
        assert_eq!(largest[0]["key"], "\"websauna_session…\" (80 bytes)");
        let sum: u64 = types.iter().map(|row| row["bytes"].as_u64().unwrap()).sum();
        let rows = prefixes.iter().chain([&content["other_prefixes"]]);
        assert_eq!(
            rows.map(|row| row["bytes"].as_u64().unwrap()).sum::<u64>(),
            sum
        );

        let text = program.run(["backup", "show", selector]).expect(0).stdout;
        for wanted in ["websauna_session*", "cart:*", "LARGEST", "< 30 D", "KEYS"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(!text.contains("0123456789abcdef"), "{text}");
        let text = program
            .run(["backup", "show", selector, "--show-keys"])
            .expect(0)
            .stdout;
        assert!(text.contains("websauna_session0123456789abcdef"), "{text}");
        let shown = program
            .json(["backup", "show", selector, "--no-content"])
            .expect(0)
            .json();
        assert!(shown.get("content").is_none());
    }
}

#[test]
fn the_facts_of_a_damaged_backup_are_shown_and_its_damage_is_told() {
    let (program, server, _) = dumped(usual(), |server| {
        fill(&mut server.client(), usual());
    });
    program.configure(&format!(
        "[[database]]\nname = \"web\"\nurl = \"{}\"\ncompression = \"none\"\n",
        server.url()
    ));
    let made = program.json(["backup", "now"]).expect(0).json();
    let id = made[0]["id"].as_str().unwrap();
    let data = program.archive().join("web").join(id).join("dump.rdb");
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let shown = program.json(["backup", "show", id]).expect(3);
    assert_eq!(shown.json()["content"]["error"]["code"], 3);
    assert_eq!(shown.json()["id"], id);
    assert!(shown.stderr.contains("error: "));
    program
        .run(["backup", "show", id, "--no-content"])
        .expect(0);
}
