//! What this host says of its memory, where it is the server's too.

use std::io;
use std::path::{Path, PathBuf};

use crate::server::Facts;
use crate::server::info::Version;

/// The memory of the server's host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Bytes that can be had without swapping (`MemAvailable`).
    pub(super) available: u64,
    /// Bytes of swap that are free.
    pub(super) swap_free: u64,
    /// `vm.overcommit_memory`: 0, 1 or 2.
    pub(super) overcommit: u8,
    /// Bytes that may still be promised where that is 2.
    pub(super) commit_left: Option<u64>,
    /// Whether the kernel gives the server huge pages, of which each write copies one.
    pub(super) huge_pages: bool,
    /// Bytes that the server's control group may still take.
    pub(super) group_left: Option<u64>,
}

/// Looks at this host. `None` when the server's memory is another's: an address of this host may be the end of a tunnel.
///
/// # Errors
/// When this process may not see it: the service's own hardening hides it.
pub(super) fn look(facts: &Facts) -> io::Result<Option<Host>> {
    look_in(&root(), facts)
}

/// Where the kernel tells. Tests of debug builds lay a folder in its place.
fn root() -> PathBuf {
    #[cfg(debug_assertions)]
    if let Some(root) = std::env::var_os("RDBKEEPER_SYSTEM_ROOT") {
        return PathBuf::from(root);
    }
    PathBuf::from("/")
}

fn look_in(root: &Path, facts: &Facts) -> io::Result<Option<Host>> {
    let read = |path: &str| std::fs::read_to_string(root.join(path));
    let memory = read("proc/meminfo")?;
    let bytes = |name: &str| meminfo(&memory, name);
    let told: Option<u64> = facts
        .get("total_system_memory")
        .and_then(|text| text.parse().ok());
    if told.is_some() && told != bytes("MemTotal") {
        return Ok(None);
    }
    let Some(available) = bytes("MemAvailable") else {
        return Ok(None);
    };
    let overcommit = read("proc/sys/vm/overcommit_memory").ok();
    let huge = read("sys/kernel/mm/transparent_hugepage/enabled");
    Ok(Some(Host {
        available,
        swap_free: bytes("SwapFree").unwrap_or(0),
        overcommit: overcommit
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(1),
        commit_left: bytes("CommitLimit")
            .zip(bytes("Committed_AS"))
            .map(|(limit, promised)| limit.saturating_sub(promised)),
        // Later ones do without for themselves (`disable-thp`).
        huge_pages: !facts.is_at_least(Version(6, 2, 0), Version(0, 0, 0))
            && huge.is_ok_and(|text| text.contains("[always]")),
        group_left: group_left(root, facts.process_id),
    }))
}

/// A line of `/proc/meminfo`, in bytes.
fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What is left to the control group of a process, by the tightest of the limits above it. The process must be a server:
/// one in a container tells the number that it has in there.
fn group_left(root: &Path, process: u32) -> Option<u64> {
    let process = root.join(format!("proc/{process}"));
    let name = std::fs::read_to_string(process.join("comm")).ok()?;
    if !["redis", "valkey"]
        .iter()
        .any(|known| name.starts_with(known))
    {
        return None;
    }
    let groups = std::fs::read_to_string(process.join("cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let top = root.join("sys/fs/cgroup");
    let mut group = top.join(path);
    let mut least: Option<u64> = None;
    while group.starts_with(&top) {
        if let Some(left) = left_of(&group) {
            least = Some(least.map_or(left, |least| least.min(left)));
        }
        if !group.pop() {
            break;
        }
    }
    least
}

/// What one group may still take; `None` without a limit. The files that it has in memory give way.
fn left_of(group: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let limit = number("memory.max")?;
    let files: u64 = read("memory.stat")
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| matches!(*name, "inactive_file" | "active_file"))
        .filter_map(|(_, bytes)| bytes.parse::<u64>().ok())
        .sum();
    let current = number("memory.current")?.saturating_sub(files);
    Some(limit.saturating_sub(current))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn facts(extra: &str) -> Facts {
        Facts::parse(&format!(
            "redis_version:7.0.15\nprocess_id:42\ntotal_system_memory:1048576\n{extra}"
        ))
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn the_kernels_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert!(look_in(root, &facts("")).is_err(), "it cannot be seen");
        let memory = "MemTotal:       1024 kB\nMemFree: 1 kB\nMemAvailable:    512 kB\nSwapFree: 8 kB\nCommitLimit: 100 kB\nCommitted_AS: 40 kB\n";
        write(root, "proc/meminfo", memory);
        write(root, "proc/sys/vm/overcommit_memory", "2\n");
        let thp = "sys/kernel/mm/transparent_hugepage/enabled";
        write(root, thp, "[always] madvise never\n");
        let mut expected = Host {
            available: 512 << 10,
            swap_free: 8 << 10,
            overcommit: 2,
            commit_left: Some(60 << 10),
            huge_pages: false,
            group_left: None,
        };
        assert_eq!(look_in(root, &facts("")).unwrap(), Some(expected.clone()));
        // An old server does not do without huge pages.
        expected.huge_pages = true;
        let old = look_in(root, &facts("redis_version:6.0.16")).unwrap();
        assert_eq!(old, Some(expected));
        // Another host's memory, at the end of a tunnel.
        let far = facts("total_system_memory:2097152");
        assert_eq!(look_in(root, &far).unwrap(), None);
    }

    #[test]
    fn the_tightest_group_above_a_server_counts_and_its_files_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, "proc/42/cgroup", "0::/system.slice/redis.service\n");
        let slice = "sys/fs/cgroup/system.slice";
        write(root, &format!("{slice}/redis.service/memory.max"), "1000\n");
        write(
            root,
            &format!("{slice}/redis.service/memory.current"),
            "900\n",
        );
        let stat = "anon 500\ninactive_file 300\nactive_file 50\n";
        write(root, &format!("{slice}/redis.service/memory.stat"), stat);
        write(root, &format!("{slice}/memory.max"), "max\n");
        write(root, &format!("{slice}/memory.current"), "5000\n");
        write(root, "proc/42/comm", "sh\n");
        assert_eq!(group_left(root, 42), None, "somebody else's process");
        write(root, "proc/42/comm", "redis-server\n");
        assert_eq!(group_left(root, 42), Some(450));
        write(root, &format!("{slice}/memory.max"), "5100\n");
        assert_eq!(group_left(root, 42), Some(100));
        assert_eq!(group_left(root, 43), None);
    }
}
