//! The server saves, and its file is read.
//!
//! Promise: the bytes are of a save that this server made after we asked. The trap is that no
//! single sign proves it: LASTSAVE counts in seconds, a status may be an old one, and the file at
//! the path may be another server's. So the save is ours only when all of this holds: no save
//! runs, the last one succeeded, `rdb_saves` moved (7.0 and later), the file is another than
//! before (which is held open meanwhile, so that its inode can't be used again), and the file's
//! own `ctime`, version and replication ID fit: it was made when a save began that we know of. What
//! remains is another server of the same version and without a replication history that saves to
//! this path within the same seconds. The file is opened once: a later rename can't swap it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::server::{self, Code, Control, Endpoint, Facts};

use super::file::readable;
use super::head::Head;
use super::{Error, Method, Pumped};

/// Bytes of a piece.
const PIECE: u64 = 512 << 10;
/// How often the server is asked whether it is done: at first, and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// How far the clock that counts in seconds (`ctime`, LASTSAVE) may be behind TIME, in microseconds:
/// it moves with the kernel's tick.
const COARSE_US: i64 = 20_000;
/// How far a file's `ctime` may be from the moment at which its save is known to have begun, in
/// seconds: a busy machine lets the child wait.
const BEGAN_WITHIN_S: i64 = 3;
/// How long a scheduled save may take to begin once nothing is in its way. The server's own
/// delay after a failed save is 5 s.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);

/// The file of a save that is ours.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) len: u64,
    pub(super) ctime_s: i64,
    pub(super) offset: Option<i64>,
    file: File,
}

/// Where the server's dump file is seen from here, or why it can't be.
pub(super) async fn locate(
    control: &mut Control,
    endpoint: &Endpoint,
    rdb_path: &Option<PathBuf>,
) -> Result<PathBuf, Error> {
    if let Some(path) = rdb_path {
        return Ok(path.clone());
    }
    let incapable = |why: &str, source: Option<server::Error>| Error::Incapable {
        method: Method::Bgsave,
        place: endpoint.place(),
        why: why.to_owned(),
        source: source.map(Box::new),
    };
    if !control.is_local() {
        return Err(incapable(
            "the server is on another host, and rdb_path does not say where its file is seen from here",
            None,
        ));
    }
    let mut parts = Vec::new();
    for name in ["dir", "dbfilename"] {
        match control.config_get(name).await {
            Ok(Some(value)) if !value.is_empty() => parts.push(value),
            Ok(_) => return Err(incapable("the server does not say where its file is", None)),
            Err(error) => {
                return Err(match error.code() {
                    Some(Code::Err | Code::NoPerm) => {
                        incapable("the server does not say where its file is", Some(error))
                    }
                    _ => failed(endpoint, "ask where the dump file is", error),
                });
            }
        }
    }
    Ok(parts.iter().collect())
}

fn failed(endpoint: &Endpoint, doing: &'static str, source: server::Error) -> Error {
    Error::Server {
        place: endpoint.place(),
        doing,
        source: Box::new(source),
    }
}

/// Makes the server save, waits, and opens the file once it is proven to be of that save.
///
/// A server whose last save failed is asked for another only when that is `insisted` on: one more
/// that fails is what makes a server with save points refuse writes.
pub(super) async fn open(
    control: &mut Control,
    endpoint: &Endpoint,
    rdb_path: &Option<PathBuf>,
    insisted: bool,
) -> Result<Opened, Error> {
    let path = locate(control, endpoint, rdb_path).await?;
    readable(&path)?;
    let mut watch = Watch {
        control,
        endpoint,
        run_id: None,
        began_s: Vec::new(),
    };
    // A save that begins between our look and our BGSAVE makes it fail: then it is waited for too.
    let mut refusals = 0;
    let (before, from_us, old) = loop {
        let before = watch.no_save_runs().await?;
        if !before.last_bgsave_ok && !insisted {
            return Err(Error::LastSaveFailed {
                place: endpoint.place(),
            });
        }
        let old = readable(&path)?;
        let from_us = watch.time_us().await?;
        match watch.control.bgsave_scheduled().await {
            Ok(()) => break (before, from_us, old),
            Err(error) => match error.code() {
                Some(Code::Err) if watch.info().await?.bgsave_in_progress => {}
                // That save may have ended just now.
                Some(Code::Err) if refusals < 2 => refusals += 1,
                Some(Code::Err | Code::NoPerm) => {
                    return Err(Error::Incapable {
                        method: Method::Bgsave,
                        place: endpoint.place(),
                        why: "BGSAVE is refused".to_owned(),
                        source: Some(Box::new(error)),
                    });
                }
                _ => return Err(failed(endpoint, "save (BGSAVE)", error)),
            },
        }
    };
    if !before.aof_rewrite_in_progress {
        // It has begun: a save is forked before BGSAVE is answered.
        let now_us = watch.time_us().await?;
        watch.began_s.push(now_us.div_euclid(1_000_000));
    }
    let after = watch.save_is_over(&before, from_us).await?;
    let till_us = watch.time_us().await?;
    let mut began_s = watch.began_s;
    began_s.extend(last_save_began(&after));
    let proof = Proof {
        endpoint,
        path: &path,
        before: &before,
        after: &after,
        window_s: (
            (from_us - COARSE_US).div_euclid(1_000_000),
            till_us.div_euclid(1_000_000),
        ),
        began_s: &began_s,
    };
    proof.open(old)
}

/// Asks the server how its save is going, and notices when it is another server by then.
struct Watch<'a> {
    control: &'a mut Control,
    endpoint: &'a Endpoint,
    run_id: Option<String>,
    /// When saves were seen to begin, by the server's time.
    began_s: Vec<i64>,
}

impl Watch<'_> {
    async fn info(&mut self) -> Result<Facts, Error> {
        let facts = self
            .control
            .info()
            .await
            .map_err(|error| failed(self.endpoint, "watch the save (INFO)", error))?;
        let run_id = self.run_id.get_or_insert_with(|| facts.run_id.clone());
        if *run_id != facts.run_id {
            return Err(Error::Restarted {
                place: self.endpoint.place(),
            });
        }
        Ok(facts)
    }

    async fn time_us(&mut self) -> Result<i64, Error> {
        let told = self.control.time_us().await;
        told.map_err(|error| match error.code() {
            // Who may ask for replication and for the configuration need not have this right.
            Some(Code::NoPerm) => Error::Incapable {
                method: Method::Bgsave,
                place: self.endpoint.place(),
                why: "TIME is refused".to_owned(),
                source: Some(Box::new(error)),
            },
            _ => failed(self.endpoint, "ask for the time (TIME)", error),
        })
    }

    async fn no_save_runs(&mut self) -> Result<Facts, Error> {
        let mut pause = POLL.0;
        loop {
            let facts = self.info().await?;
            if !facts.bgsave_in_progress {
                return Ok(facts);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL.1);
        }
    }

    /// Waits until no save runs and one has run since `before`, or should have.
    async fn save_is_over(&mut self, before: &Facts, from_us: i64) -> Result<Facts, Error> {
        let mut pause = POLL.0;
        let mut scheduled = before.aof_rewrite_in_progress;
        let mut idle_since: Option<Instant> = None;
        let mut saving = false;
        let mut looks = 0;
        loop {
            let facts = self.info().await?;
            looks += 1;
            // A save ends with the server's next tick at the earliest: one that is not to be seen
            // at once waits behind something, such as a module's child.
            scheduled |= looks == 1 && !facts.bgsave_in_progress && !ran(before, &facts);
            if facts.bgsave_in_progress && !saving {
                let now_us = self.time_us().await?;
                self.began_s.push(now_us.div_euclid(1_000_000));
            }
            saving = facts.bgsave_in_progress;
            scheduled |= facts.aof_rewrite_in_progress && !facts.bgsave_in_progress;
            if facts.bgsave_in_progress || facts.aof_rewrite_in_progress && !ran(before, &facts) {
                idle_since = None;
                // What was scheduled has begun: its end is an end.
                scheduled &= !facts.bgsave_in_progress;
            } else {
                let idle = idle_since.get_or_insert_with(Instant::now).elapsed();
                let done = ran(before, &facts)
                    && (!facts.last_bgsave_ok
                        || facts.last_save_s >= (from_us - COARSE_US) / 1_000_000);
                if done || !scheduled || idle > BEGIN_WITHIN {
                    return Ok(facts);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL.1);
        }
    }
}

/// Whether a save has begun since `before`, where the server counts them.
fn ran(before: &Facts, now: &Facts) -> bool {
    match (before.rdb_saves, now.rdb_saves) {
        (Some(before), Some(now)) => now > before,
        _ => now.last_save_s > before.last_save_s,
    }
}

/// When the last save began, as far as the server's counters of its end and duration tell.
fn last_save_began(facts: &Facts) -> Option<i64> {
    let seconds: i64 = facts.get("rdb_last_bgsave_time_sec")?.parse().ok()?;
    (seconds >= 0).then(|| facts.last_save_s - seconds)
}

/// What is known about a save that is over, against which the file is held.
struct Proof<'a> {
    endpoint: &'a Endpoint,
    path: &'a Path,
    before: &'a Facts,
    after: &'a Facts,
    /// The server's time before BGSAVE and after the save, in seconds.
    window_s: (i64, i64),
    /// When saves began within it.
    began_s: &'a [i64],
}

impl Proof<'_> {
    fn open(&self, old: Option<File>) -> Result<Opened, Error> {
        let io_error = |source| Error::File {
            path: self.path.to_owned(),
            source,
        };
        if !self.after.last_bgsave_ok {
            return Err(Error::SaveFailed {
                place: self.endpoint.place(),
            });
        }
        if let (Some(before), Some(after)) = (self.before.rdb_saves, self.after.rdb_saves)
            && after <= before
        {
            return Err(self.not_ours("the server counts no save since it was asked"));
        }
        if self.after.last_save_s < self.window_s.0 {
            return Err(self.not_ours("the server's last save is older than our request"));
        }
        let Some(file) = readable(self.path)? else {
            return Err(self.not_ours("there is no such file"));
        };
        let meta = file.metadata().map_err(io_error)?;
        if !meta.is_file() {
            return Err(self.not_ours("it is not a regular file"));
        }
        if let Some(old) = &old {
            let old = old.metadata().map_err(io_error)?;
            if (old.dev(), old.ino()) == (meta.dev(), meta.ino()) {
                return Err(self.not_ours("the file is the same as before the save"));
            }
        }
        let mut first = vec![0; meta.len().min(4096) as usize];
        file.read_exact_at(&mut first, 0).map_err(io_error)?;
        let head = Head::parse(&first).map_err(|problem| self.not_ours(&problem))?;
        let ctime_s = self.fits(&head)?;
        tracing::debug!(bytes = meta.len(), "the server has saved its file");
        Ok(Opened {
            path: self.path.to_owned(),
            len: meta.len(),
            ctime_s,
            offset: head.offset,
            file,
        })
    }

    /// Whether the file's own fields fit this server and this moment; its time.
    fn fits(&self, head: &Head) -> Result<i64, Error> {
        let (from, till) = self.window_s;
        let Some(ctime) = head.ctime_s else {
            return Err(self.not_ours("it does not say when it was made"));
        };
        if !(from..=till).contains(&ctime) {
            return Err(self.not_ours(&format!(
                "it was made at {ctime}, the save between {from} and {till} (Unix time)"
            )));
        }
        let near = |began: &i64| (began - ctime).abs() <= BEGAN_WITHIN_S;
        if !self.began_s.iter().any(near) {
            return Err(self.not_ours(&format!(
                "it was made at {ctime} (Unix time), when no save of this server began"
            )));
        }
        if let Some(version) = &head.version {
            let told = match self.after.product {
                server::info::Product::Redis => self.after.get("redis_version"),
                server::info::Product::Valkey => self.after.get("valkey_version"),
            };
            if told != Some(version.as_str()) {
                return Err(self.not_ours(&format!("it was made by a server of version {version}")));
            }
        }
        if let Some(replid) = &head.replid {
            let known = ["master_replid", "master_replid2"].map(|name| self.after.get(name));
            let before = self.before.get("master_replid");
            if ![known[0], known[1], before].contains(&Some(replid.as_str())) {
                return Err(self.not_ours("it is of another replication history"));
            }
        }
        Ok(ctime)
    }

    fn not_ours(&self, why: &str) -> Error {
        Error::NotOurs {
            place: self.endpoint.place(),
            path: self.path.to_owned(),
            why: why.to_owned(),
        }
    }
}

impl Opened {
    pub(super) async fn pump(
        self,
        out: mpsc::Sender<Bytes>,
        cancel: CancellationToken,
    ) -> Result<Pumped, Error> {
        // When this future is dropped, nothing else would tell the thread, which holds the sender.
        let stop = cancel.child_token();
        let _stopped_on_drop = stop.clone().drop_guard();
        let reading = tokio::task::spawn_blocking(move || self.read(&out, &stop));
        match reading.await {
            Ok(result) => result,
            // Only a panic or the end of the runtime ends it otherwise.
            Err(_) => Err(Error::Cancelled),
        }
    }

    fn read(
        mut self,
        out: &mpsc::Sender<Bytes>,
        stop: &CancellationToken,
    ) -> Result<Pumped, Error> {
        let runtime = tokio::runtime::Handle::current();
        // The file was just written: it is in the page cache, and is read from front to back.
        if let Err(error) = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::Sequential)
        {
            tracing::debug!(%error, "no advice taken");
        }
        let mut bytes: u64 = 0;
        while bytes < self.len {
            let wanted = (self.len - bytes).min(PIECE);
            let mut piece = Vec::with_capacity(wanted as usize);
            let got = (&mut self.file)
                .take(wanted)
                .read_to_end(&mut piece)
                .map_err(|source| Error::File {
                    path: self.path.clone(),
                    source,
                })?;
            bytes += got as u64;
            if got as u64 != wanted {
                return Err(Error::FileCut {
                    path: self.path,
                    expected: self.len,
                    got: bytes,
                });
            }
            // Not `blocking_send`: it would wait for a receiver that takes nothing more.
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => Err(Error::Cancelled),
                    sent = out.send(Bytes::from(piece)) => sent.map_err(|_| Error::ReceiverGone),
                }
            })?;
        }
        Ok(Pumped {
            bytes,
            ..Pumped::default()
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(extra: &str) -> Facts {
        Facts::parse(&format!(
            "redis_version:7.0.15\nrun_id:a\nmaster_replid:mine\nmaster_replid2:old\nrdb_last_bgsave_status:ok\n{extra}"
        ))
    }

    #[test]
    fn only_a_head_that_fits_is_ours() {
        let endpoint = Endpoint::new(crate::server::Address::tcp("h", 1));
        let (before, after) = (facts("rdb_saves:1"), facts("rdb_saves:2"));
        let proof = Proof {
            endpoint: &endpoint,
            path: Path::new("/d.rdb"),
            before: &before,
            after: &after,
            window_s: (100, 130),
            began_s: &[100, 101],
        };
        let head = |ctime: i64, version: &str, replid: &str| Head {
            ctime_s: Some(ctime),
            version: Some(version.into()),
            replid: Some(replid.into()),
            offset: None,
        };
        assert_eq!(proof.fits(&head(101, "7.0.15", "mine")).unwrap(), 101);
        assert_eq!(proof.fits(&head(100, "7.0.15", "old")).unwrap(), 100);
        assert!(proof.fits(&head(99, "7.0.15", "mine")).is_err());
        assert!(
            proof.fits(&head(105, "7.0.15", "mine")).is_err(),
            "no save began then"
        );
        assert!(proof.fits(&head(131, "7.0.15", "mine")).is_err());
        assert!(proof.fits(&head(101, "7.0.14", "mine")).is_err());
        assert!(proof.fits(&head(101, "7.0.15", "theirs")).is_err());
        assert!(proof.fits(&Head::default()).is_err());
    }

    #[test]
    fn a_save_that_failed_or_did_not_move_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dump.rdb");
        std::fs::write(&path, b"REDIS0010").unwrap();
        let endpoint = Endpoint::new(crate::server::Address::tcp("h", 1));
        let open = |before: &Facts, after: &Facts, old: Option<File>| {
            Proof {
                endpoint: &endpoint,
                path: &path,
                before,
                after,
                window_s: (100, 102),
                began_s: &[100],
            }
            .open(old)
        };
        let before = facts("rdb_saves:1\nrdb_last_save_time:90");
        let mut failed = facts("rdb_saves:2\nrdb_last_save_time:90");
        failed.last_bgsave_ok = false;
        assert!(matches!(
            open(&before, &failed, None),
            Err(Error::SaveFailed { .. })
        ));
        let still = facts("rdb_saves:1\nrdb_last_save_time:101");
        assert!(matches!(
            open(&before, &still, None),
            Err(Error::NotOurs { .. })
        ));
        let early = facts("rdb_saves:2\nrdb_last_save_time:99");
        assert!(matches!(
            open(&before, &early, None),
            Err(Error::NotOurs { .. })
        ));
        let good = facts("rdb_saves:2\nrdb_last_save_time:101");
        let same = File::open(&path).unwrap();
        assert!(matches!(
            open(&before, &good, Some(same)),
            Err(Error::NotOurs { .. })
        ));
        // Another file, but it does not say when it was made.
        assert!(matches!(
            open(&before, &good, None),
            Err(Error::NotOurs { .. })
        ));
    }
}
