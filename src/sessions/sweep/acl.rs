//! The smallest ACL that a sweep needs. The tests run sweeps as exactly these users.

use super::Mode;
use crate::config::SessionRule;
use crate::server::Facts;
use crate::server::info::Version;
use crate::sessions::stores::{self, Shape};

/// `ACL SETUSER …` for a user named `name` that may do what `mode` needs with these rules on this server, and
/// nothing else. `selects` when databases other than 0 are meant. The password stands as `PASSWORD`.
pub fn acl_line(
    mode: Mode,
    rules: &[SessionRule],
    facts: &Facts,
    name: &str,
    selects: bool,
) -> String {
    let at_least = |version| facts.is_at_least(version, version);
    let has = |shape: Shape| rules.iter().any(|rule| stores::shape(rule.store) == shape);
    let reads = rules.iter().any(|rule| stores::reads_values(rule.store));
    // Not `%R~*`: the servers' `*` does not match the empty key.
    let mut grants = vec!["+ping", "+info", "+time", "+dbsize", "+scan"];
    grants.push(if at_least(Version(7, 0, 0)) {
        "+pexpiretime"
    } else {
        "+pttl"
    });
    grants.push("+memory|usage");
    // A report reads the values of keys that no rule takes, too.
    if mode == Mode::Report || reads && (has(Shape::Text) || has(Shape::Any)) {
        grants.push("+getrange");
    }
    if has(Shape::Hash) {
        grants.extend(["+hstrlen", "+hmget", "+exists"]);
    }
    if rules.iter().any(|rule| rule.idle) {
        grants.push("+object|idletime");
    }
    if at_least(Version(7, 2, 0)) {
        grants.push("+client|no-touch");
    }
    if selects {
        grants.push("+select");
    }
    if mode != Mode::Report {
        grants.push("+eval");
    }
    if mode == Mode::Expire {
        grants.extend(["+type", "+pexpireat", "+unlink"]);
        if has(Shape::Hash) {
            grants.extend(["+srem", "+zrem"]);
        }
    }
    format!(
        "ACL SETUSER {name} reset on >PASSWORD ~* {}",
        grants.join(" ")
    )
}
