//! Whether a server with these modules can hold a module's value.
//!
//! A file names the data type (`ReJSON-RL`), a server its modules (`ReJSON`), and nothing that can be asked says which
//! belongs to which. So the types of well-known modules are listed here, and where nothing is known the answer is that
//! it may: the server says so itself when it does not, only later.

use std::collections::BTreeSet;

/// Types, and the modules that have them, in small letters.
const KNOWN: [(&[&str], &[&str]); 6] = [
    (&["ReJSON-RL"], &["rejson", "json"]),
    (
        &[
            "MBbloom--",
            "MBbloomCF",
            "CMSk-TYPE",
            "TopK-TYPE",
            "TDIS-TYPE",
        ],
        &["bf"],
    ),
    (&["bloomfltr"], &["bf"]),
    (&["TSDB-TYPE"], &["timeseries"]),
    (&["vectorset"], &["vectorset"]),
    (&["graphdata"], &["graph", "falkordb"]),
];

/// Whether one of `modules` may know the type.
pub(super) fn may_know(modules: &BTreeSet<String>, type_name: &str) -> bool {
    let owners = KNOWN
        .iter()
        .find(|(types, _)| types.contains(&type_name))
        .map(|(_, owners)| *owners);
    modules
        .iter()
        .map(String::as_str)
        .any(|module| match owners {
            // A module that nobody knows here may be a fork of the one that is wanted.
            Some(owners) => {
                owners.contains(&module)
                    || !KNOWN.iter().any(|(_, others)| others.contains(&module))
            }
            // Every Redis 8 has this one, and it has a single type.
            None => module != "vectorset",
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_needs_its_module_or_one_that_is_not_known() {
        let may = |modules: &[&str], name| {
            let modules = modules.iter().map(|name| (*name).to_owned()).collect();
            may_know(&modules, name)
        };
        assert!(!may(&[], "ReJSON-RL") && !may(&[], "unknown--"));
        assert!(may(&["rejson"], "ReJSON-RL") && may(&["json"], "ReJSON-RL"));
        assert!(!may(&["vectorset", "bf"], "ReJSON-RL"));
        assert!(may(&["vectorset", "a-fork"], "ReJSON-RL"));
        assert!(!may(&["vectorset"], "unknown--") && may(&["bf"], "unknown--"));
    }
}
