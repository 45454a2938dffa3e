//! Backups encrypted with age: who can read them, who can't, and that everybody else's tools can, too.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rdbkeeper::catalog::manifest::{Manifest, Read};

use crate::cmd;
use crate::support::age::{self, Key};
use crate::support::compare::Contents;
use crate::support::data::{fill, sessions};
use crate::support::poll;
use crate::support::program::{Program, files_below, finish, signal};
use crate::support::servers::{Server, usual};

const PASSPHRASE: &str = "correct horse battery staple";

/// A server with data, and a program that backs it up with these keys in its configuration.
fn program(server: &Server, keys: &str) -> Program {
    let program = Program::new("");
    configure(&program, server, keys);
    program
}

fn configure(program: &Program, server: &Server, keys: &str) {
    program.configure(&format!(
        "[[database]]\nname = \"web\"\nurl = \"{}\"\n{keys}\n",
        server.url()
    ));
}

fn filled() -> Server {
    let server = Server::start(usual());
    server.client().run_all(sessions(200));
    server
}

fn recipients(keys: &[&Key]) -> String {
    let list: Vec<&str> = keys.iter().map(|key| key.public.as_str()).collect();
    format!("recipients = {list:?}")
}

/// Writes a key or a passphrase into the program's folder.
fn key_file(program: &Program, name: &str, text: &str) -> PathBuf {
    let path = program.folder().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Makes a backup; gives its manifest and its folder.
fn back_up(program: &Program) -> (serde_json::Value, PathBuf) {
    let made = program.json(["backup", "now"]).expect(0).json();
    let manifest = made[0].clone();
    let folder = program.archive().join("web");
    let folder = folder.join(manifest["id"].as_str().unwrap());
    (manifest, folder)
}

/// What a server makes of a file.
fn loaded(file: &Path) -> Contents {
    let mut server = Server::start(usual());
    server.kill();
    fs::copy(file, server.dump_file()).unwrap();
    server.restart();
    Contents::of(&mut server.client())
}

/// What the only backup is, as `verify --json` tells it.
fn verified(program: &Program, more: &[&str]) -> serde_json::Value {
    let mut arguments = vec!["backup", "verify", "web"];
    arguments.extend(more);
    program.json(arguments).expect(0).json()[0].clone()
}

#[test]
fn each_recipient_alone_restores_and_a_stranger_does_not() {
    let server = filled();
    let [one, other, stranger] = [Key::new(), Key::new(), Key::new()];
    let program = program(&server, &recipients(&[&one, &other]));
    let (manifest, folder) = back_up(&program);
    let data = &manifest["data"];
    assert_eq!(data["object"], "dump.rdb.zst.age");
    assert_eq!(data["encryption"], "age");
    assert_eq!(
        data["recipients"],
        serde_json::json!([one.public, other.public])
    );
    let stored = fs::read(folder.join("dump.rdb.zst.age")).unwrap();
    assert!(stored.starts_with(b"age-encryption.org/v1\n"));
    assert_eq!(stored.len() as u64, data["bytes"].as_u64().unwrap());
    let shown = program.run(["backup", "show", "web"]).expect(0).stdout;
    assert!(
        shown.contains(&one.public) && shown.contains(&other.public),
        "{shown}"
    );
    let listed = program.run(["backup", "list"]).expect(0).stdout;
    assert!(listed.contains("encrypted"), "{listed}");

    let mine = Contents::of(&mut server.client());
    for key in [&one, &other] {
        let file = key_file(&program, "key", &key.file());
        let identity = file.to_str().unwrap();
        assert_eq!(
            verified(&program, &["--identity", identity])["result"],
            "whole"
        );
        let target = Server::start(usual());
        let url = target.url();
        program
            .run(["restore", "web", "--to", &url, "--identity", identity])
            .expect(0);
        mine.must_equal(&Contents::of(&mut target.client()), "restored");
    }

    let target = Server::start(usual());
    let url = target.url();
    let file = key_file(&program, "key", &stranger.file());
    let identity = file.to_str().unwrap();
    for by in ["web", folder.to_str().unwrap()] {
        for arguments in [
            vec!["restore", by, "--to", &url, "--identity", identity],
            vec![
                "restore",
                by,
                "--to-file",
                "out.rdb",
                "--identity",
                identity,
            ],
            vec!["backup", "verify", by, "--identity", identity],
        ] {
            let ran = program.run(&arguments).expect(1);
            let said = &ran.stderr;
            assert!(said.contains(&one.public), "{arguments:?}: {said}");
            assert!(said.contains(&stranger.public), "{arguments:?}: {said}");
            assert!(said.contains("--identity"), "{arguments:?}: {said}");
        }
    }
    let ran = program.json(["restore", "web", "--to", &url]).expect(1);
    assert_eq!(ran.json()["error"]["kind"], "key");
    let hint = ran.json()["error"]["hint"].to_string();
    assert!(
        hint.contains("identity_file") && hint.contains("--identity"),
        "{hint}"
    );
    assert_eq!(target.client().run(cmd!["DBSIZE"]).int(), 0);
    assert!(!program.folder().join("out.rdb").exists());
}

#[test]
fn without_a_key_verify_compares_what_is_stored_and_takes_no_mark_back() {
    let server = filled();
    let key = Key::new();
    let program = program(&server, &recipients(&[&key]));
    let (manifest, folder) = back_up(&program);
    let file = key_file(&program, "key", &key.file());
    let identity = ["--identity", file.to_str().unwrap()];
    let found = verified(&program, &[]);
    assert_eq!(found["result"], "stored");
    assert_eq!(found["bytes"], manifest["data"]["bytes"]);
    assert!(
        found.get("rdb").is_none() && found.get("checksum").is_none(),
        "{found}"
    );
    let said = program.run(["backup", "verify", "web"]).expect(0).stdout;
    assert!(said.contains("the key is not here"), "{said}");

    let object = folder.join("dump.rdb.zst.age");
    let whole = fs::read(&object).unwrap();
    let mut flipped = whole.clone();
    let at = flipped.len() - 100;
    flipped[at] ^= 4;
    let marked = || folder.join("damaged").exists();
    // Found without a key as well as with one.
    fs::write(&object, &flipped).unwrap();
    program.run(["backup", "verify", "web"]).expect(3);
    assert!(marked());
    fs::write(&object, &whole).unwrap();
    assert_eq!(verified(&program, &[])["result"], "stored");
    assert!(marked(), "only a whole reading takes the mark back");
    let said = program.run(["backup", "verify", "web"]).expect(0).stdout;
    assert!(said.contains("its mark DAMAGED stands"), "{said}");
    assert_eq!(verified(&program, &identity)["result"], "whole");
    assert!(!marked());
    // A header that was flipped is damage, whichever key is tried.
    let stranger = key_file(&program, "stranger", &Key::new().file());
    for at in [60, 100, 150] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&object, &flipped).unwrap();
        for identity in [&file, &stranger] {
            let identity = ["--identity", identity.to_str().unwrap()];
            for command in [
                ["backup", "verify", "web"].as_slice(),
                &["restore", "web", "--to-file", "out.rdb"],
            ] {
                program.run([command, &identity].concat()).expect(3);
            }
        }
    }
    // So is damage behind a header that is whole, and verify says so before it speaks of keys.
    let mut flipped = whole.clone();
    flipped[at] ^= 1;
    fs::write(&object, &flipped).unwrap();
    program
        .run([
            "backup",
            "verify",
            "web",
            "--identity",
            stranger.to_str().unwrap(),
        ])
        .expect(3);
}

#[test]
fn keys_are_changed_without_losing_the_backups_of_before() {
    let server = filled();
    let [old, new] = [Key::new(), Key::new()];
    let program = program(&server, &recipients(&[&old]));
    back_up(&program);
    server.client().run(cmd!["SET", "since", "then"]);
    key_file(&program, "both", &format!("{}\n{}", old.file(), new.file()));
    let keys = format!("{}\nidentity_file = \"both\"", recipients(&[&new]));
    configure(&program, &server, &keys);
    let (second, _) = back_up(&program);
    assert_eq!(
        second["data"]["recipients"],
        serde_json::json!([new.public])
    );
    let all = program.json(["backup", "verify", "--all"]).expect(0).json();
    let results: Vec<&str> = (0..2)
        .map(|at| all[at]["result"].as_str().unwrap())
        .collect();
    assert_eq!(results, ["whole", "whole"]);
}

#[test]
fn a_passphrase_encrypts_and_its_file_alone_brings_the_keys_back() {
    let server = filled();
    let program = program(&server, "passphrase_file = \"secret\"");
    key_file(&program, "secret", &format!("{PASSPHRASE}\n"));
    let (manifest, folder) = back_up(&program);
    assert_eq!(manifest["data"]["encryption"], "age");
    assert!(manifest["data"].get("recipients").is_none());
    assert_eq!(verified(&program, &[])["result"], "whole");
    // On another machine, with nothing but the folder and the passphrase.
    let bare = Program::new("[[database]]\nname = \"other\"\nurl = \"redis://127.0.0.1:1\"\n");
    let passphrase = key_file(&bare, "passphrase", PASSPHRASE);
    let wrong = key_file(&bare, "wrong", "correct horse battery stapel");
    let key = key_file(&bare, "key", &Key::new().file());
    let file = folder.join("dump.rdb.zst.age");
    for by in [&folder, &file] {
        let by = by.to_str().unwrap();
        let restore = ["restore", by, "--yes", "--to-file", "out.rdb", "--identity"];
        let with = |file: &Path| bare.run([&restore[..], &[file.to_str().unwrap()]].concat());
        let said = with(&wrong).expect(1).stderr;
        assert!(said.contains("the passphrase is not the one"), "{said}");
        let said = with(&key).expect(1).stderr;
        assert!(said.contains("what is given is an age identity"), "{said}");
        with(&passphrase).expect(0);
        Contents::of(&mut server.client())
            .must_equal(&loaded(&bare.folder().join("out.rdb")), "the restored file");
        fs::remove_file(bare.folder().join("out.rdb")).unwrap();
        let said = bare.run(&restore[..5]).expect(1).stderr;
        assert!(said.contains("encrypted with a passphrase"), "{said}");
    }
}

#[test]
fn a_host_without_the_private_key_backs_up_and_the_key_is_asked_for_only_to_read() {
    let server = filled();
    let key = Key::new();
    let keys = format!(
        "{}\nidentity_file = \"elsewhere\"\nschedule = \"* * * * * *\"\n",
        recipients(&[&key])
    );
    let program = program(&server, &keys);
    back_up(&program);
    program.run(["backup", "list"]).expect(0);
    program.run(["backup", "show", "web"]).expect(0);
    program.run(["check"]).expect(0);
    let said = program.run(["backup", "verify", "web"]).expect(1).stderr;
    assert!(
        said.contains("`identity_file` of web") && said.contains("elsewhere"),
        "{said}"
    );
    let daemon = program.spawn(["run"]);
    poll::until("the daemon has made a backup", || {
        let folders = fs::read_dir(program.archive().join("web")).unwrap();
        let whole = folders.filter(|folder| {
            let folder = folder.as_ref().unwrap().path();
            folder.join("manifest.json").exists()
        });
        (whole.count() > 1).then_some(())
    });
    signal(&daemon, rustix::process::Signal::TERM);
    finish(daemon).expect(0);
    // A credential of systemd brings the key.
    let credentials = tempfile::tempdir().unwrap();
    fs::write(credentials.path().join("elsewhere"), key.file()).unwrap();
    let mut program = program;
    program.env(
        "CREDENTIALS_DIRECTORY",
        credentials.path().to_str().unwrap(),
    );
    assert_eq!(verified(&program, &[])["result"], "whole");
}

#[test]
fn the_age_tool_opens_our_files_and_we_open_its() {
    let Some(tool) = age::tool("age") else { return };
    let server = Server::start(usual());
    fill(&mut server.client(), usual());
    let key = Key::new();
    let program = program(&server, &recipients(&[&Key::new(), &key]));
    let (_, folder) = back_up(&program);
    let file = key_file(&program, "key", &key.file());
    let identity = file.to_str().unwrap();
    let opened = Command::new("sh")
        .arg("-c")
        .arg("\"$1\" -d -i \"$2\" \"$3\" | zstd -d > \"$4\"")
        .arg("sh")
        .args([&tool, &file, &folder.join("dump.rdb.zst.age")])
        .arg(program.folder().join("plain.rdb"))
        .output()
        .unwrap();
    assert!(opened.status.success(), "{opened:?}");
    let plain = program.folder().join("plain.rdb");
    Contents::of(&mut server.client()).must_equal(&loaded(&plain), "opened by age");

    let encrypted = Command::new(&tool)
        .args(["-r", &key.public, "-o", "theirs.rdb.age", "plain.rdb"])
        .current_dir(program.folder())
        .output()
        .unwrap();
    assert!(encrypted.status.success(), "{encrypted:?}");
    let found = program
        .json(["backup", "show", "theirs.rdb.age", "--identity", identity])
        .expect(0)
        .json();
    assert_eq!(found["result"], "whole");
    assert_eq!(found["checksum"], "verified");
    let said = program
        .run(["backup", "verify", "theirs.rdb.age"])
        .expect(1)
        .stderr;
    assert!(said.contains("no identity is given"), "{said}");
}

#[test]
fn rage_opens_our_files_and_we_open_its() {
    let Some(tree) = age::pyrage() else { return };
    let server = filled();
    let key = Key::new();
    let program = program(
        &server,
        &format!("{}\ncompression = \"none\"", recipients(&[&key])),
    );
    let (_, folder) = back_up(&program);
    let passphrase = key_file(&program, "passphrase", PASSPHRASE);
    let script = r#"
import sys, pyrage
secret, public, passphrase, ours, folder = sys.argv[1:]
plain = pyrage.decrypt(open(ours, "rb").read(), [pyrage.x25519.Identity.from_str(secret)])
open(folder + "/plain.rdb", "wb").write(plain)
recipient = pyrage.x25519.Recipient.from_str(public)
open(folder + "/theirs.rdb.age", "wb").write(pyrage.encrypt(plain, [recipient]))
open(folder + "/phrase.rdb.age", "wb").write(pyrage.passphrase.encrypt(plain, passphrase))
"#;
    let ran = Command::new("python3")
        .args(["-c", script, &key.secret, &key.public, PASSPHRASE])
        .arg(folder.join("dump.rdb.age"))
        .arg(program.folder())
        .env("PYTHONPATH", tree)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}");
    let mine = Contents::of(&mut server.client());
    mine.must_equal(
        &loaded(&program.folder().join("plain.rdb")),
        "opened by rage",
    );
    let file = key_file(&program, "key", &key.file());
    for (theirs, identity) in [("theirs.rdb.age", &file), ("phrase.rdb.age", &passphrase)] {
        let identity = identity.to_str().unwrap();
        program
            .run(["backup", "verify", theirs, "--identity", identity])
            .expect(0);
    }
}

#[test]
fn no_key_and_no_passphrase_shows_in_any_output_or_file() {
    let server = filled();
    let key = Key::new();
    let program = program(
        &server,
        &format!("{}\nidentity = {:?}", recipients(&[&key]), key.secret),
    );
    let mut said = String::new();
    let mut run = |arguments: &[&str], code: i32| {
        let ran = program.run(arguments).expect(code);
        said.push_str(&ran.stdout);
        said.push_str(&ran.stderr);
    };
    let all = |run: &mut dyn FnMut(&[&str], i32)| {
        for before in [
            &["-vvv"][..],
            &["-vvv", "--json"],
            &["-vvv", "--log", "json"],
        ] {
            for command in [
                &["backup", "now"][..],
                &["backup", "verify", "web"],
                &["backup", "show", "web"],
                &["restore", "web", "--yes", "--to-file", "out.rdb"],
                &["check"],
            ] {
                run(&[before, command].concat(), 0);
            }
        }
    };
    all(&mut run);
    let wrong = key_file(&program, "wrong", &Key::new().file());
    let wrong = wrong.to_str().unwrap().to_owned();
    run(
        &["-vvv", "backup", "verify", "web", "--identity", &wrong],
        1,
    );
    // A private key in the place of a public one, and one with a slip.
    let slip = format!("{}x", key.secret);
    configure(
        &program,
        &server,
        &format!("recipients = [{:?}]", key.secret),
    );
    run(&["check"], 2);
    configure(&program, &server, &format!("identity = {slip:?}"));
    run(&["check"], 2);
    configure(
        &program,
        &server,
        &format!("identity = \"\"\"\n{slip}\"\"\""),
    );
    run(&["check"], 2);
    configure(&program, &server, &format!("passphrase = {PASSPHRASE:?}"));
    all(&mut run);
    let secret = &key.secret["AGE-SECRET-KEY-1".len()..];
    for hidden in [secret, &secret.to_lowercase(), PASSPHRASE, "battery"] {
        assert!(!said.contains(hidden), "{said}");
        for file in files_below(program.folder()) {
            let ours = ["archive", "state", "spool"]
                .iter()
                .any(|folder| file.starts_with(folder));
            let bytes = fs::read(program.folder().join(&file)).unwrap();
            let shows = bytes
                .windows(hidden.len())
                .any(|window| window == hidden.as_bytes());
            assert!(!ours || !shows, "{}", file.display());
        }
    }
}

#[test]
fn files_that_hold_no_usable_key_say_what_they_are() {
    let server = filled();
    let key = Key::new();
    let program = program(&server, &recipients(&[&key]));
    back_up(&program);
    for (text, expected) in [
        (key.public.clone(), "is a public key"),
        (
            "# nothing here\n".to_owned(),
            "there is no age identity in it",
        ),
        (
            "age-encryption.org/v1\n-> scrypt x 18\n".to_owned(),
            "are encrypted themselves",
        ),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n".to_owned(),
            "keys of SSH are not supported",
        ),
        ("AGE-PLUGIN-YUBIKEY-1QQQ\n".to_owned(), "of an age plugin"),
        ("two\nlines\n".to_owned(), "has several lines"),
        (String::new(), "it is empty"),
        // A passphrase, as it seems: and none is wanted.
        ("hunter2\n".to_owned(), "what is given is a passphrase"),
    ] {
        let file = key_file(&program, "key", &text);
        let identity = ["--identity", file.to_str().unwrap()];
        let code = if text.contains("hunter2") { 1 } else { 2 };
        for command in [
            &["restore", "web", "--to-file", "out.rdb"][..],
            &["backup", "verify", "web"],
        ] {
            let said = program
                .run([command, &identity].concat())
                .expect(code)
                .stderr;
            assert!(said.contains(expected), "{text}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
    // Told at once, also where no key is needed.
    configure(&program, &server, "");
    back_up(&program);
    for command in [
        &["restore", "web", "--to-file", "x"][..],
        &["backup", "verify", "web"],
        &["backup", "show", "web"],
    ] {
        let ran = program.run([command, &["--identity", "/nowhere"]].concat());
        let said = ran.expect(2).stderr;
        assert!(said.contains("/nowhere"), "{said}");
    }
}

#[test]
fn a_passphrase_that_would_not_read_the_backup_back_makes_none() {
    let server = filled();
    let key = Key::new();
    let program = program(&server, "passphrase_file = \"secret\"");
    for (text, expected) in [
        ("#hunter2\n".to_owned(), "begins with #"),
        ("hunter2\nand more\n".to_owned(), "several lines"),
        (key.file(), "`identity_file` is meant"),
        (key.public.clone(), "`recipients` is meant"),
    ] {
        key_file(&program, "secret", &text);
        let said = program.run(["backup", "now"]).expect(2).stderr;
        assert!(said.contains(expected), "{said}");
        assert!(
            !said.contains("hunter2") && !said.contains(&key.secret),
            "{said}"
        );
    }
    configure(&program, &server, "passphrase = \"#hunter2\"");
    let said = program.run(["backup", "now"]).expect(2).stderr;
    assert!(
        said.contains("begins with #") && !said.contains("hunter2"),
        "{said}"
    );
}

#[test]
fn what_a_newer_version_encrypted_is_no_damage() {
    let server = filled();
    let key = Key::new();
    let program = program(&server, &recipients(&[&key]));
    let (_, folder) = back_up(&program);
    let file = folder.join("manifest.json");
    let Read::Whole(mut manifest) = Manifest::read(&fs::read(&file).unwrap()) else {
        panic!("the manifest is not whole");
    };
    manifest.data.encryption = Some("later".to_owned());
    let mut permissions = fs::metadata(&file).unwrap().permissions();
    permissions.set_mode(0o600);
    fs::set_permissions(&file, permissions).unwrap();
    fs::write(&file, manifest.to_bytes().unwrap()).unwrap();
    let said = program.run(["backup", "verify", "web"]).expect(1).stderr;
    assert!(said.contains("a newer rdbkeeper made it"), "{said}");
    assert!(!folder.join("damaged").exists());
}

#[test]
fn check_tells_of_keys_that_are_missing_wrong_or_of_others() {
    let server = filled();
    let [key, other] = [Key::new(), Key::new()];
    let keys = format!("{}\nidentity_file = \"key\"", recipients(&[&key]));
    let program = program(&server, &keys);
    let check = || program.run(["check"]).expect(0).stdout;
    assert!(check().contains("could not be read back here: `identity_file`"));
    key_file(&program, "key", "hunter2");
    let said = check();
    assert!(
        said.contains("is no age identity") && !said.contains("hunter2"),
        "{said}"
    );
    key_file(&program, "key", &other.file());
    assert!(check().contains("backups made now could not be read back with it"));
    key_file(&program, "key", &format!("{}{}", other.file(), key.file()));
    assert!(!check().contains("read back"));
    configure(&program, &server, "passphrase_file = \"secret\"");
    let failed = |expected: &str| {
        let said = program.run(["check"]).expect(2).stderr;
        assert!(
            said.contains("backups of web cannot be encrypted"),
            "{said}"
        );
        assert!(said.contains(expected), "{said}");
    };
    failed("the file is not there");
    key_file(&program, "secret", "two\nlines\n");
    failed("several lines");
    key_file(&program, "secret", PASSPHRASE);
    assert!(!check().contains("read back"));
}

/// The commands of the emergency page for an encrypted backup, in this folder and with this key.
fn recipe(folder: &Path, key: &Path) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/restore.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("```").skip(1).step_by(2);
    let block = blocks
        .filter_map(|block| block.split_once('\n'))
        .map(|(_, block)| block)
        .find(|block| block.contains("-i KEYFILE"))
        .unwrap();
    block
        .replace(
            "/var/lib/rdbkeeper/backups/sessions/$ID",
            folder.to_str().unwrap(),
        )
        .replace("KEYFILE", key.to_str().unwrap())
}

#[test]
fn the_emergency_page_brings_an_encrypted_backup_back_without_rdbkeeper() {
    let server = filled();
    let key = Key::new();
    let program = program(&server, &recipients(&[&key]));
    let (_, folder) = back_up(&program);
    let file = key_file(&program, "key", &key.file());
    let recipe = recipe(&folder, &file);
    let tool = age::tool("age");
    let lines = recipe.lines().filter(|line| {
        let needs_age = !line.starts_with("cd ") && !line.contains("sha256sum");
        !line.starts_with("redis-check-rdb") && (tool.is_some() || !needs_age)
    });
    let lines: Vec<&str> = lines.collect();
    assert!(lines.len() >= 2, "{recipe}");
    let path = std::env::var("PATH").unwrap();
    let beside = tool
        .as_deref()
        .and_then(Path::parent)
        .unwrap_or(Path::new("/"));
    let ran = Command::new("sh")
        .args(["-e", "-c", &lines.join("\n")])
        .env("PATH", format!("{path}:{}", beside.display()))
        .env("HOME", program.folder())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{recipe}: {ran:?}");
    if tool.is_some() {
        let plain = program.folder().join("restore/dump.rdb");
        Contents::of(&mut server.client()).must_equal(&loaded(&plain), "by the page");
    }
}
