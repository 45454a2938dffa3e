//! The smallest ACL that each method needs. The tests run every method as exactly that user.

use crate::server::Facts;
use crate::server::info::Version;

use super::Method;

/// `ACL SETUSER …` for a user named `name` that may do what `method` needs on this server, and
/// nothing else. `selects` when databases other than 0 are meant; `finds_file` when BGSAVE's file
/// is found by CONFIG GET. The password stands as `PASSWORD`.
pub fn acl_line(
    method: Method,
    facts: &Facts,
    name: &str,
    selects: Selects,
    finds_file: FindsFile,
) -> String {
    let seven = facts.is_at_least(Version(7, 0, 0), Version(7, 0, 0));
    let mut rules = vec!["+ping", "+info"];
    let mut keys = "";
    match method {
        Method::Bgsave => {
            rules.extend(["+bgsave", "+time"]);
            if finds_file == FindsFile::ByConfigGet {
                rules.push("+config|get");
            }
            if selects == Selects::Yes {
                rules.push("+select");
            }
        }
        Method::Replication => {
            rules.extend(["+psync", "+replconf"]);
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
        let line = |method, version: &str| {
            let facts = Facts::parse(version);
            acl_line(method, &facts, "b", Selects::No, FindsFile::ByConfigGet)
        };
        assert_eq!(
            line(Method::Replication, "redis_version:7.0.15"),
            "ACL SETUSER b reset on >PASSWORD +ping +info +psync +replconf"
        );
        assert!(line(Method::Scan, "redis_version:6.2.5").contains(" ~* "));
        assert!(line(Method::Scan, "redis_version:6.2.5").contains("+pttl"));
        assert!(!line(Method::Scan, "redis_version:7.0.15").contains("no-touch"));
        assert!(line(Method::Scan, "valkey_version:8.1.1").contains("no-touch"));
    }
}
