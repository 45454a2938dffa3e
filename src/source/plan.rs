//! Which methods would work, without doing any: for `check`.
//!
//! Each command is tried in a form that can do no harm: a server looks at the number of arguments
//! first, at the ACL next, and at what they mean last, so a form that makes no sense is refused by
//! the ACL or, when that lets it through, by the command itself. The trap is PSYNC: for most servers
//! any arguments mean "then send everything". `PSYNC ? -1 FAILOVER` (6.2 and later) is refused, as
//! `?` is no server's replication ID; before 6.2 it is only queued in a transaction that is discarded.

use std::path::PathBuf;

use crate::config::ForkGuard;
use crate::server::info::Version;
use crate::server::{self, Code, Control, Facts};

use super::acl::{FindsFile, Needs, Selects, acl_line};
use super::error::chain;
use super::guard::{self, Depth};
use super::{
    Choice, Error, Method, Request, SourceFacts, bgsave, file, pick, scan, server_compression,
};

/// The user that the ACL lines are written for when the endpoint names none.
const NAME: &str = "rdbkeeper";

/// What would happen.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server that would be dumped.
    pub facts: SourceFacts,
    /// Its databases that hold keys, and how many.
    pub databases: Vec<(u32, u64)>,
    /// Bytes that the server's data takes in its memory: a bound for most dumps.
    pub used_memory: u64,
    /// The method that would be taken; `None` when the one wanted, or every one, does not work.
    pub chosen: Option<Method>,
    /// Each method, the best first.
    pub methods: Vec<MethodPlan>,
    /// Why this server and not the other, for people.
    pub reasons: Vec<String>,
    /// What a person should know although it works.
    pub warnings: Vec<String>,
}

/// Whether a method would work.
#[derive(Clone, Debug)]
pub struct MethodPlan {
    /// Which.
    pub method: Method,
    /// What is in its way; empty when nothing is known to be.
    pub obstacles: Vec<String>,
    /// What could not be found out without doing it.
    pub unknown: Vec<String>,
    /// What a person should know although it works.
    pub warnings: Vec<String>,
    /// Whether what is in its way is a fork that looks dangerous.
    pub fork_refused: bool,
    /// The smallest ACL it needs: `ACL SETUSER …` with `PASSWORD` to be filled in.
    pub acl: String,
}

impl MethodPlan {
    /// Whether nothing is known to be in its way.
    pub fn works(&self) -> bool {
        self.obstacles.is_empty()
    }
}

/// Looks at what each method would need, and does none of them.
///
/// # Errors
/// As [`open`](super::open), up to the choice of a method.
pub async fn plan(request: &Request) -> Result<Plan, Error> {
    tokio::select! {
        biased;
        () = request.cancel.cancelled() => Err(Error::Cancelled),
        result = plan_inner(request) => result,
    }
}

async fn plan_inner(request: &Request) -> Result<Plan, Error> {
    let mut picked = pick::pick(request).await?;
    let selects = match &request.databases {
        Some(databases) if databases.iter().any(|db| *db != 0) => Selects::Yes,
        None if picked.facts.keyspace.keys().any(|db| *db != 0) => Selects::Yes,
        _ => Selects::No,
    };
    let named = request
        .databases
        .as_ref()
        .is_some_and(|databases| databases.iter().any(|db| *db != 0));
    let finds_file = match request.rdb_path {
        Some(_) => FindsFile::ByRdbPath,
        None => FindsFile::ByConfigGet,
    };
    let name = picked.endpoint.username.clone();
    let name = name.as_deref().filter(|name| *name != "default");
    about_compression(request, &mut picked).await;
    let mut methods = Vec::new();
    for method in Method::ALL {
        let Findings {
            obstacles,
            unknown,
            warnings,
            fork_refused,
        } = look(method, request, &mut picked).await?;
        let selects = match method {
            // Only a scan has to go into each database; the others ask whether a named one exists.
            Method::Scan => selects,
            _ if named => Selects::Yes,
            _ => Selects::No,
        };
        methods.push(MethodPlan {
            method,
            obstacles,
            unknown,
            warnings,
            fork_refused,
            acl: acl_line(
                method,
                &picked.facts,
                name.unwrap_or(NAME),
                Needs {
                    selects,
                    finds_file,
                    fork_guard: request.fork_guard != ForkGuard::Off,
                    compression_off: request.disable_server_compression,
                },
            ),
        });
    }
    let chosen = methods
        .iter()
        .find(|plan| {
            plan.works()
                && match request.choice {
                    Choice::Auto => true,
                    Choice::Only(method) => method == plan.method,
                }
        })
        .map(|plan| plan.method);
    let keyspace = picked.facts.keyspace.iter();
    Ok(Plan {
        databases: keyspace.map(|(db, keys)| (*db, keys.keys)).collect(),
        used_memory: picked.facts.used_memory,
        facts: SourceFacts::new(&picked.endpoint, &picked.facts),
        chosen,
        methods,
        reasons: picked.reasons,
        warnings: picked.warnings,
    })
}

/// Says what would be done about the server's own compression, and what a killed run has left of that.
async fn about_compression(request: &Request, picked: &mut pick::Picked) {
    let left = request.state_dir.as_ref();
    let left = left.and_then(|dir| server_compression::left_off(dir, &picked.facts));
    picked.warnings.extend(left);
    if request.disable_server_compression && request.choice != Choice::Only(Method::Scan) {
        match server_compression::may(&mut picked.control).await {
            Ok(()) => picked.reasons.push(
                "its own compression (rdbcompression) would be off while it makes the dump"
                    .to_owned(),
            ),
            Err(why) => picked.warnings.push(format!(
                "its own compression (rdbcompression) would stay as it is: {why}"
            )),
        }
    }
}

/// What is found about a method.
struct Findings {
    obstacles: Vec<String>,
    unknown: Vec<String>,
    warnings: Vec<String>,
    fork_refused: bool,
}

async fn look(
    method: Method,
    request: &Request,
    picked: &mut pick::Picked,
) -> Result<Findings, Error> {
    let mut warnings = Vec::new();
    let mut dangers = Vec::new();
    if method.forks() && request.fork_guard != ForkGuard::Off {
        let (control, facts) = (&mut picked.control, &picked.facts);
        for finding in guard::look(method, control, facts, Depth::All).await {
            let refuses = finding.grave && request.fork_guard == ForkGuard::Refuse;
            let told = finding.told();
            match refuses {
                true => dangers.push(format!("refused by fork_guard: {told}")),
                false => warnings.push(told),
            }
        }
    }
    let fork_refused = !dangers.is_empty();
    let mut asker = Asker {
        facts: &picked.facts,
        control: &mut picked.control,
        place: picked.endpoint.place(),
        obstacles: dangers,
        unknown: Vec::new(),
    };
    match method {
        Method::Bgsave => {
            asker
                .harmless("BGSAVE", &["BGSAVE", "rdbkeeper-probe"])
                .await?;
            asker.harmless("TIME", &["TIME"]).await?;
            match bgsave::locate(asker.control, &picked.endpoint, &request.rdb_path).await {
                Ok(path) => asker.file(path),
                Err(error) if error.is_incapacity() => asker.obstacles.push(chain(&error)),
                Err(error) => return Err(error),
            }
            if !asker.facts.last_bgsave_ok {
                let text = "the server's last save failed: see its log";
                asker.obstacles.push(text.to_owned());
            }
        }
        Method::Replication => {
            asker
                .harmless("REPLCONF", &["REPLCONF", "capa", "eof"])
                .await?;
            if asker.facts.is_at_least(Version(6, 2, 0), Version(7, 2, 0)) {
                asker
                    .harmless("PSYNC", &["PSYNC", "?", "-1", "FAILOVER"])
                    .await?;
            } else {
                asker.queued("PSYNC", &["PSYNC", "?", "-1"]).await?;
            }
        }
        Method::Scan => {
            let seven = asker.facts.is_at_least(Version(7, 0, 0), Version(7, 0, 0));
            let expiry = if seven { "PEXPIRETIME" } else { "PTTL" };
            let key = "rdbkeeper:probe";
            asker.harmless("SCAN", &["SCAN", "0", "COUNT", "1"]).await?;
            asker.harmless("DUMP", &["DUMP", key]).await?;
            asker.harmless(expiry, &[expiry, key]).await?;
            asker.harmless("TIME", &["TIME"]).await?;
            if scan::asks_for_sizes(asker.facts, &request.scan) {
                asker
                    .harmless("MEMORY USAGE", &["MEMORY", "USAGE", key])
                    .await?;
            }
        }
    }
    Ok(Findings {
        obstacles: asker.obstacles,
        unknown: asker.unknown,
        warnings,
        fork_refused,
    })
}

struct Asker<'a> {
    facts: &'a Facts,
    control: &'a mut Control,
    place: String,
    obstacles: Vec<String>,
    unknown: Vec<String>,
}

impl Asker<'_> {
    /// Tries a command in a form that does nothing.
    async fn harmless(&mut self, name: &str, args: &[&str]) -> Result<(), Error> {
        let answer = self.control.call(args).await;
        self.judge(name, args[0], answer).await
    }

    /// Queues a command in a transaction that is discarded: the ACL is asked when it is queued.
    async fn queued(&mut self, name: &str, args: &[&str]) -> Result<(), Error> {
        let begun: Result<redis::Value, _> = self.control.call(&["MULTI"]).await;
        if begun.is_err() {
            self.unknown.push(format!(
                "whether {name} is allowed shows only when it is done"
            ));
            return Ok(());
        }
        let answer = self.control.call(args).await;
        // A user that may MULTI and not DISCARD has a transaction that never runs: as good.
        let _discarded: Result<redis::Value, _> = self.control.call(&["DISCARD"]).await;
        self.judge(name, args[0], answer).await
    }

    async fn judge(
        &mut self,
        name: &str,
        command: &str,
        answer: Result<redis::Value, server::Error>,
    ) -> Result<(), Error> {
        let Err(error) = answer else {
            return Ok(());
        };
        match error.code() {
            Some(Code::NoPerm) => {
                self.obstacles
                    .push(format!("{name} is forbidden to this user"));
            }
            // Either it is not known here, or it is, and finds that our form makes no sense.
            Some(Code::Err) => {
                if self.is_known(command).await? == Some(false) {
                    self.obstacles
                        .push(format!("this server has no command {name}"));
                }
            }
            Some(Code::MasterDown) => {}
            _ => {
                return Err(Error::Server {
                    place: self.place.clone(),
                    doing: "try what is allowed",
                    source: Box::new(error),
                });
            }
        }
        Ok(())
    }

    /// Whether the server has a command of this name; `None` when it does not tell this user.
    async fn is_known(&mut self, name: &str) -> Result<Option<bool>, Error> {
        let answer: Result<Vec<redis::Value>, _> =
            self.control.call(&["COMMAND", "INFO", name]).await;
        match answer {
            Ok(entries) => Ok(Some(
                entries
                    .first()
                    .is_some_and(|entry| *entry != redis::Value::Nil),
            )),
            Err(error) if error.is_disconnect() => Err(Error::Server {
                place: self.place.clone(),
                doing: "ask which commands there are",
                source: Box::new(error),
            }),
            Err(_) => Ok(None),
        }
    }

    fn file(&mut self, path: PathBuf) {
        match file::readable(&path) {
            Ok(Some(_)) => {}
            Ok(None) => self.unknown.push(format!(
                "{} does not exist yet: whether it can be read shows with the first save",
                path.display()
            )),
            Err(error) => self.obstacles.push(chain(&error)),
        }
    }
}
