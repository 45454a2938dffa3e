//! The smallest ACL that each method needs. The tests run every method as exactly that user.

use crate::server::Facts;
use crate::server::info::Version;

use super::Method;
use super::guard::keeps_writes;

/// What a dump does on a server, beside taking the data.
#[derive(Clone, Copy, Debug)]
pub struct Needs {
    /// Whether databases other than 0 are meant.
    pub selects: Selects,
    /// How the file of BGSAVE is found.
    pub finds_file: FindsFile,
    /// Whether the limits of replicas are looked at before a fork.
    pub fork_guard: bool,
    /// Whether the server's own compression is turned off.
    pub compression_off: bool,
}

/// `ACL SETUSER …` for a user named `name` that may do what `method` needs on this server, and
/// nothing else. The password stands as `PASSWORD`.
pub fn acl_line(method: Method, facts: &Facts, name: &str, needs: Needs) -> String {
    let Needs {
        selects,
        finds_file,
        ..
    } = needs;
    let seven = facts.is_at_least(Version(7, 0, 0), Version(7, 0, 0));
    let mut rules = vec!["+ping", "+info"];
    let mut keys = "";
    match method {
        Method::Bgsave => {
            rules.extend(["+bgsave", "+time"]);
            if finds_file == FindsFile::ByConfigGet || needs.compression_off {
                rules.push("+config|get");
            }
            if needs.compression_off {
                rules.push("+config|set");
            }
            if selects == Selects::Yes {
                rules.push("+select");
            }
        }
        Method::Replication => {
            rules.extend(["+psync", "+replconf"]);
            if needs.compression_off || needs.fork_guard && keeps_writes(facts) {
                rules.push("+config|get");
            }
            if needs.compression_off {
                rules.push("+config|set");
            }
            if selects == Selects::Yes {
                rules.push("+select");
            }
        }
        Method::Scan => {
            // Not `%R~*`: the servers' `*` does not match the empty key. No command here writes.
            keys = " ~*";
            rules.extend(["+scan", "+dump", "+time", "+memory|usage"]);
            rules.push(if seven { "+pexpiretime" } else { "+pttl" });
            if seven {
                rules.push("+function|dump");
            }
            if facts.is_at_least(Version(7, 2, 0), Version(7, 2, 0)) {
                rules.push("+client|no-touch");
            }
            if selects == Selects::Yes {
                rules.push("+select");
            }
        }
    }
    format!(
        "ACL SETUSER {name} reset on >PASSWORD{keys} {}",
        rules.join(" ")
    )
}

/// Whether databases other than 0 are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selects {
    /// They are.
    Yes,
    /// Only database 0 is.
    No,
}

/// How the file of BGSAVE is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindsFile {
    /// The server is asked.
    ByConfigGet,
    /// `rdb_path` says it.
    ByRdbPath,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_the_version() {
        let mut needs = Needs {
            selects: Selects::No,
            finds_file: FindsFile::ByRdbPath,
            fork_guard: true,
            compression_off: false,
        };
        let line = |method, version: &str| acl_line(method, &Facts::parse(version), "b", needs);
        assert_eq!(
            line(Method::Replication, "redis_version:7.0.15"),
            "ACL SETUSER b reset on >PASSWORD +ping +info +psync +replconf"
        );
        assert!(line(Method::Scan, "redis_version:6.2.5").contains(" ~* "));
        assert!(line(Method::Scan, "redis_version:6.2.5").contains("+pttl"));
        assert!(!line(Method::Scan, "redis_version:7.0.15").contains("no-touch"));
        assert!(line(Method::Scan, "valkey_version:8.1.1").contains("no-touch"));
        // Only old servers keep what is written for whoever asks for the data.
        assert!(line(Method::Replication, "redis_version:6.0.16").ends_with(" +config|get"));
        assert!(!line(Method::Bgsave, "redis_version:6.0.16").contains("config"));
        needs.compression_off = true;
        for method in Method::ALL {
            let line = acl_line(method, &Facts::parse("redis_version:7.0.15"), "b", needs);
            let may = line.contains(" +config|get +config|set");
            assert_eq!(may, method.forks(), "{line}");
        }
    }
}
