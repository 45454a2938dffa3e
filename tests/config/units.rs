//! The systemd units: what they start is a command line that is understood, and systemd understands them.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use rdbkeeper::cli::args;

fn units() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let units = paths.filter(|path| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        matches!(kind, Some("service" | "timer"))
    });
    units
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn what_a_unit_starts_is_a_command() {
    let mut count = 0;
    for (name, text) in units() {
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("ExecStart="))
        {
            let line = line.replace("%i", "sessions");
            let parsed = args::parse(line.split_whitespace().map(OsString::from));
            assert!(parsed.is_ok(), "{name}: {line}: {parsed:?}");
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn systemd_understands_the_units() {
    let known = Command::new("systemd-analyze").arg("--version").output();
    if !known.is_ok_and(|output| output.status.success()) {
        return; // Nobody here who could say.
    }
    let folder = tempfile::tempdir().unwrap();
    let mut paths = Vec::new();
    for (name, text) in units() {
        let path = folder.path().join(name);
        // The program need not be installed where it is tested.
        let text = text.replace("/usr/bin/rdbkeeper", "/bin/true");
        fs::write(&path, text).unwrap();
        paths.push(path);
    }
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&paths)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.is_empty(), "{told}");
}

#[test]
fn the_units_expose_no_more_than_2_of_10() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    for (name, _) in units() {
        if !name.ends_with(".service") {
            continue;
        }
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
            .arg(folder.join(&name))
            .output();
        let Ok(output) = output else {
            return; // Nobody here who could say.
        };
        let told = String::from_utf8_lossy(&output.stderr);
        if told.contains("unrecognized option") {
            return; // systemd before 250.
        }
        let verdict = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {verdict}{told}");
    }
}
