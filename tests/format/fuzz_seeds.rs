//! The inputs that fuzzing began with, and those that it found something with: through the same functions.

use std::path::Path;

#[path = "../fuzz/src/targets.rs"]
mod targets;

#[test]
fn what_fuzzing_has_met_is_read_without_harm() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
    for (name, target) in targets::ALL {
        let mut met = 0;
        for entry in std::fs::read_dir(seeds.join(name)).unwrap() {
            let path = entry.unwrap().path();
            eprintln!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
            met += 1;
        }
        assert!(met > 0, "{name} has no seeds");
    }
}
