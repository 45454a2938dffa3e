//! The documentation is run: the fenced `sh` blocks of a page, in their order, as one script, on a real server.
//!
//! The pages speak of `/var/lib/redis`, `127.0.0.1:6379` and `systemctl`. A run has a folder that stands for the
//! machine's root, a server on a free port, and shell functions that do the real thing to that server
//! (`docs.prelude.sh`). A `toml` block is a whole configuration: it must parse, and the commands after it use it.
//! Blocks of other languages show something and are not run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rdbkeeper::config::{Config, Environment};
use rdbkeeper::server::Facts;
use rdbkeeper::server::configured::judge_url;
use rdbkeeper::sessions::sweep::{Mode, acl_line};

use crate::cmd;
use crate::support::client::Client;
use crate::support::compare::Contents;
use crate::support::data;
use crate::support::poll;
use crate::support::program::{Ran, finish};
use crate::support::servers::{self, Kind, Server, free_port};

/// A fenced block of a page.
struct Block {
    language: String,
    /// Of its first line.
    line: usize,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap()
}

/// The fenced blocks, in their order.
fn blocks(page: &str) -> Vec<Block> {
    let text = read(page);
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => {
                let language = language.trim().to_owned();
                assert!(
                    ["sh", "console", "toml", "text"].contains(&language.as_str()),
                    "{page}:{}: say what `{language}` is: sh, console, toml or text",
                    number + 1
                );
                found.push(Block {
                    language,
                    line: number + 2,
                    text: String::new(),
                });
                open = true;
            }
            (Some(_), true) => open = false,
            (None, true) => {
                let block = found.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!open, "{page}: a block is not closed");
    found
}

/// Whether the tools are there; says visibly what is skipped when one is not.
fn has(page: &str, tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<&str> = tools
        .iter()
        .copied()
        .filter(|tool| !std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()))
        .collect();
    if !missing.is_empty() {
        servers::announce(&format!(
            "{page}: skipped, {} was not found",
            missing.join(", ")
        ));
    }
    missing.is_empty()
}

/// A folder that stands for a machine's root, with a server that is set up as a distribution's.
struct Machine {
    folder: tempfile::TempDir,
    port: u16,
    program: PathBuf,
    /// A last line of the server's configuration: the data is made with the help of DEBUG.
    debug: &'static str,
    /// What else is replaced in the pages: another server, say.
    replaced: Vec<(String, String)>,
}

impl Machine {
    /// Starts its server: saved now and then, and with an append-only file.
    fn start(kind: &Kind) -> Machine {
        let folder = tempfile::Builder::new()
            .prefix("rdbkeeper-docs-")
            .tempdir()
            .unwrap();
        let mut machine = Machine {
            folder,
            port: 0,
            program: kind.program().to_owned(),
            debug: match kind.speaks_redis(7, 0) {
                true => "enable-debug-command yes",
                false => "",
            },
            replaced: Vec::new(),
        };
        for below in [
            "bin",
            "home",
            "etc/redis",
            "etc/rdbkeeper",
            "var/lib/redis",
            "var/lib/rdbkeeper",
        ] {
            fs::create_dir_all(machine.path(below)).unwrap();
        }
        let mut tried = Vec::new();
        for _ in 0..10 {
            machine.port = free_port();
            machine.write_tools();
            let ran = machine.bash("systemctl start redis-server\n");
            if ran.code == Some(0) {
                return machine;
            }
            tried.push(ran.stderr);
        }
        panic!("no server: {tried:?}");
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn client(&self) -> Client {
        Client::tcp(self.port).unwrap()
    }

    /// The server's configuration, and the programs that know where everything lies.
    fn write_tools(&self) {
        let place = self.folder.path().display();
        fs::write(
            self.path("etc/redis/redis.conf"),
            format!(
                "bind 127.0.0.1\nport {}\ndir {place}/var/lib/redis\nlogfile {place}/var/lib/redis/redis.log\n\
                 save 3600 1 300 100\nappendonly yes\nrepl-diskless-sync-delay 0\n{}\n",
                self.port, self.debug
            ),
        )
        .unwrap();
        // Without a configuration rdbkeeper asks 127.0.0.1:6379, which may be anybody's: the same, elsewhere.
        fs::write(
            self.path("no-configuration.toml"),
            format!(
                "[daemon]\nstate_dir = \"{place}/var/lib/rdbkeeper/state\"\n\
                 [storage.local]\nkind = \"local\"\npath = \"{place}/var/lib/rdbkeeper/backups\"\n\
                 [[database]]\nname = \"default\"\nurl = \"redis://127.0.0.1:{}\"\n",
                self.port
            ),
        )
        .unwrap();
        self.write_tool(
            "rdbkeeper",
            &format!(
                "configuration={place}/etc/rdbkeeper/rdbkeeper.toml\n\
                 [ -e $configuration ] || configuration={place}/no-configuration.toml\n\
                 RDBKEEPER_CONFIG=$configuration exec {} \"$@\"\n",
                env!("CARGO_BIN_EXE_rdbkeeper")
            ),
        );
        self.write_tool(
            "redis-cli",
            &format!("PATH=${{PATH#*:}} exec redis-cli -p {} \"$@\"\n", self.port),
        );
    }

    fn write_tool(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The pages' places become this machine's.
    fn here(&self, text: &str) -> String {
        let place = self.folder.path().to_str().unwrap();
        let mut text = text
            .replace("127.0.0.1:6379", &format!("127.0.0.1:{}", self.port))
            .replace("localhost:6379", &format!("localhost:{}", self.port));
        for of_the_machine in [
            "/var/lib/redis",
            "/var/lib/rdbkeeper",
            "/etc/redis",
            "/etc/rdbkeeper",
        ] {
            text = text.replace(of_the_machine, &format!("{place}{of_the_machine}"));
        }
        for (from, to) in &self.replaced {
            text = text.replace(from, to);
        }
        text
    }

    /// Runs a script as an administrator of this machine would.
    fn bash(&self, script: &str) -> Ran {
        let prelude = fs::read_to_string(root().join("tests/live/docs.prelude.sh")).unwrap();
        let file = self.path("script.sh");
        fs::write(&file, format!("{prelude}\n{script}")).unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut child = Command::new("bash")
            .arg(&file)
            .current_dir(self.path("home"))
            .env_clear()
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.path("home"))
            // Also as root nothing may lie in the machine's own folders.
            .env("XDG_STATE_HOME", self.path("var/lib"))
            .env("LC_ALL", "C")
            .env("PLACE", self.folder.path())
            .env("PORT", self.port.to_string())
            .env("SERVER", &self.program)
            .stdin(Stdio::null())
            .stdout(fs::File::create(self.path("stdout")).unwrap())
            .stderr(fs::File::create(self.path("stderr")).unwrap())
            .spawn()
            .unwrap();
        poll::until("the end of a script", || child.try_wait().unwrap());
        Ran {
            stdout: fs::read_to_string(self.path("stdout")).unwrap(),
            stderr: fs::read_to_string(self.path("stderr")).unwrap(),
            ..finish(child)
        }
    }

    /// Runs all of a page, `first` before it.
    #[track_caller]
    fn run(&self, page: &str, first: &str) -> Ran {
        let mut script = format!("{first}\n");
        for block in blocks(page) {
            let text = self.here(&block.text);
            let line = format!("line='{page}:{}'\n", block.line);
            match block.language.as_str() {
                "sh" => script.push_str(&format!("{line}{text}")),
                "toml" => script.push_str(&format!(
                    "{line}cat > {} <<'END OF CONFIGURATION'\n{text}END OF CONFIGURATION\n",
                    self.path("etc/rdbkeeper/rdbkeeper.toml").display()
                )),
                _ => {}
            }
        }
        self.bash(&script).expect(0)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let Ok(text) = fs::read_to_string(self.path("redis.pid")) else {
            return;
        };
        let pid = text.trim().parse().ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

const PAGES: [&str; 7] = [
    "README.md",
    "docs/restore.md",
    "docs/configuration.md",
    "docs/sessions.md",
    "docs/encryption.md",
    "docs/inspect.md",
    "docs/neighbour.md",
];

#[test]
fn every_configuration_in_the_documentation_parses() {
    let environment = Environment::in_folder("/").with("HOME", "/home/user");
    let mut count = 0;
    for page in PAGES {
        for block in blocks(page).iter().filter(|block| block.language == "toml") {
            let parsed = Config::parse(
                Path::new("/etc/rdbkeeper/rdbkeeper.toml"),
                &block.text,
                &environment,
                &judge_url,
            );
            if let Err(error) = parsed {
                panic!("{page}:{}: {error}", block.line);
            }
            count += 1;
        }
    }
    assert!(count >= 3);
}

#[test]
fn every_file_that_the_documentation_links_to_is_there() {
    for page in PAGES {
        let folder = root().join(page).parent().unwrap().to_owned();
        for link in read(page).split("](").skip(1) {
            let (target, _) = link.split_once(')').unwrap();
            let target = target.split('#').next().unwrap();
            assert!(
                target.starts_with("https://") || folder.join(target).exists(),
                "{page}: {target} is not there"
            );
        }
    }
}

#[test]
fn every_command_of_the_emergency_page_brings_the_keys_back() {
    let page = "docs/restore.md";
    let tools = [
        "bash",
        "ps",
        "zstd",
        "sha256sum",
        "redis-cli",
        "redis-check-rdb",
    ];
    if !has(page, &tools) {
        return;
    }
    let kind = servers::usual();
    let machine = Machine::start(kind);
    data::fill(&mut machine.client(), kind);
    fs::write(
        machine.path("etc/rdbkeeper/rdbkeeper.toml"),
        machine.here(
            "[daemon]\nstate_dir = \"/var/lib/rdbkeeper/state\"\n\
             [storage.disk]\nkind = \"local\"\npath = \"/var/lib/rdbkeeper/backups\"\n\
             [[database]]\nname = \"sessions\"\nurl = \"redis://127.0.0.1:6379\"\n",
        ),
    )
    .unwrap();
    machine.bash("rdbkeeper backup now\n").expect(0);
    let before = Contents::of(&mut machine.client());
    assert!(before.keys() > 100);

    // The disaster; and before the server is stopped, another: the restore into the running server is looked at,
    // and what is there afterwards must not come back by the server's own files.
    machine.client().run(cmd!["FLUSHALL"]);
    if before.functions.is_some() {
        machine.client().run(cmd!["FUNCTION", "FLUSH"]);
    }
    let disaster = "BEFORE_STOP='redis-cli info keyspace > \"$PLACE/keyspace\"; redis-cli flushall; redis-cli set marker 1'";
    machine.run(page, disaster);

    let running = fs::read_to_string(machine.path("keyspace")).unwrap();
    for (db, items) in &before.databases {
        assert!(
            running.contains(&format!("db{db}:keys={},", items.len())),
            "restored into the running server: {running}"
        );
    }
    before.must_equal(
        &Contents::of(&mut machine.client()),
        "a server that was started from the file",
    );

    // The append-only file holds it all, too.
    let mut client = machine.client();
    assert_eq!(client.info("aof_enabled").unwrap(), "1");
    drop(client);
    machine
        .bash("systemctl stop redis-server; rm -f \"$PLACE/var/lib/redis/dump.rdb\"; systemctl start redis-server\n")
        .expect(0);
    before.must_equal(
        &Contents::of(&mut machine.client()),
        "the server after its next start",
    );
    let kept = machine.path("var/lib/redis/before-restore");
    assert!(kept.join("dump.rdb").exists());
}

/// What the page's commands did to a second, empty server that stands for 127.0.0.1:6380.
fn run_beside_another(page: &str) -> Option<(Machine, Server, Ran)> {
    if !has(page, &["bash", "ps", "base64", "redis-cli"]) {
        return None;
    }
    let kind = servers::usual();
    let mut machine = Machine::start(kind);
    data::fill(&mut machine.client(), kind);
    let other = Server::start(kind);
    let theirs = format!("127.0.0.1:{}", other.port());
    machine.replaced.push(("127.0.0.1:6380".to_owned(), theirs));
    let ran = machine.run(page, "");
    Some((machine, other, ran))
}

#[test]
fn every_command_of_the_readme_works_and_its_restore_restores() {
    let page = "README.md";
    let Some((machine, other, ran)) = run_beside_another(page) else {
        return;
    };
    let there = Contents::of(&mut other.client());
    let here = Contents::of(&mut machine.client());
    let sessions = |contents: &Contents| contents.clone().only(|db, _, _| db == 1);
    assert!(sessions(&here).keys() > 10);
    sessions(&here).must_equal(&sessions(&there), page);

    // The rights that each method needs are those that `check` tells.
    if servers::usual().to_string() == "redis-7.0" {
        let lines: Vec<String> = read(page)
            .lines()
            .filter(|line| line.starts_with("ACL SETUSER "))
            .map(str::to_owned)
            .collect();
        assert_eq!(lines.len(), 3);
        for line in lines {
            assert!(ran.stdout.contains(&line), "{line}\n{}", ran.stdout);
        }
    }
}

#[test]
fn every_command_of_the_reference_works_as_a_user_with_the_fewest_rights() {
    let page = "docs/configuration.md";
    let Some((_machine, _other, ran)) = run_beside_another(page) else {
        return;
    };
    assert!(ran.stdout.contains("by replication"), "{}", ran.stdout);
}

#[test]
fn every_command_of_the_page_on_looking_inside_works() {
    let page = "docs/inspect.md";
    if !has(page, &["bash", "ps", "redis-cli", "redis-check-rdb", "cmp"]) {
        return;
    }
    let kind = servers::usual();
    let mut machine = Machine::start(kind);
    data::fill(&mut machine.client(), kind);
    let other = Server::start(kind);
    let theirs = format!("-p {}", other.port());
    machine.replaced.push(("-p 6380".to_owned(), theirs));
    let ran = machine.run(page, "redis-cli save\nrdbkeeper backup now\n");
    assert!(ran.stdout.contains("errors: 0,"), "{}", ran.stdout);
    assert!(ran.stdout.contains(" 0 changed, "), "{}", ran.stdout);
    let mut here = Contents::of(&mut machine.client()).only(|db, _, _| db == 1);
    // Of one database alone they do not come along.
    here.functions = None;
    here.must_equal(&Contents::of(&mut other.client()), page);
}

#[test]
fn every_command_of_the_page_on_sessions_works_and_leaves_none_without_ttl() {
    let page = "docs/sessions.md";
    if !has(page, &["bash", "ps", "redis-cli"]) {
        return;
    }
    let machine = Machine::start(servers::usual());
    let mut client = machine.client();
    client.select(1);
    // The envelope of pyramid_redis_sessions, as JSON; one in ten began two years ago.
    let now = jiff::Timestamp::now().as_second();
    for number in 0..100 {
        let created = now
            - if number % 10 == 0 {
                2 * 365 * 86_400
            } else {
                3600
            };
        let value =
            format!("{{\"managed_dict\": {{}}, \"created\": {created}.5, \"timeout\": 31536000}}");
        client.run(cmd!["SET", format!("websauna_session{number:064x}"), value]);
    }
    client.run(cmd!["SET", "websauna_session_test", "success"]);
    // Only the page's own configuration counts here, not those of the frameworks after it.
    let ran = machine.run(page, "");
    assert!(
        ran.stdout.contains("[[database.sessions]]"),
        "{}",
        ran.stdout
    );
    assert_eq!(client.run(cmd!["DBSIZE"]).int(), 91);
    let without = (0..100)
        .filter(|number| {
            let key = format!("websauna_session{number:064x}");
            client.run(cmd!["TTL", key]).int() == -1
        })
        .count();
    assert_eq!(without, 0);
    assert_eq!(client.run(cmd!["TTL", "websauna_session_test"]).int(), -1);
}

#[test]
fn the_rights_that_the_page_on_sessions_tells_are_the_fewest_that_suffice() {
    let page = "docs/sessions.md";
    let text = read(page);
    let told: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("ACL SETUSER "))
        .collect();
    // The first configuration of the page: the rule that the section speaks of.
    let all = blocks(page);
    let first = all.iter().find(|block| block.language == "toml").unwrap();
    let config = Config::parse(
        Path::new("/etc/rdbkeeper/rdbkeeper.toml"),
        &first.text,
        &Environment::in_folder("/").with("HOME", "/home/user"),
        &judge_url,
    )
    .unwrap();
    let rules = &config.databases[0].sessions;
    let facts = Facts::parse("redis_version:7.0.15\r\n");
    let lines =
        [Mode::Report, Mode::Expire].map(|mode| acl_line(mode, rules, &facts, "rdbkeeper", true));
    assert_eq!(told, lines);
}

#[test]
fn a_gzip_backup_is_undone_by_gunzip_as_the_emergency_page_says() {
    let page = "docs/restore.md";
    if !has(page, &["bash", "ps", "gunzip", "redis-cli"]) {
        return;
    }
    let command = "gunzip -c dump.rdb.gz > ~/restore/dump.rdb";
    assert!(read(page).contains(command));
    let machine = Machine::start(servers::usual());
    machine.client().run_all(data::sessions(3000));
    let plain = fs::read_to_string(machine.path("no-configuration.toml")).unwrap();
    fs::write(
        machine.path("etc/rdbkeeper/rdbkeeper.toml"),
        format!("{plain}compression = \"gzip\"\n"),
    )
    .unwrap();
    let script = format!(
        "rdbkeeper backup now\nrdbkeeper restore latest --to-file same.rdb\nmkdir ~/restore\n\
         cd \"$PLACE\"/var/lib/rdbkeeper/backups/default/*\n{command}\ncmp ~/same.rdb ~/restore/dump.rdb\n"
    );
    machine.bash(&script).expect(0);
}
