//! Named points at which a test can stop a process, to kill it there. Release builds carry none of it.

/// Says that a stage is reached. In a debug build a process whose `RDBKEEPER_STOP_AT` names the stage
/// creates the file that `RDBKEEPER_STOPPED` names and then stands still until it is killed.
#[inline]
pub fn reached(stage: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os("RDBKEEPER_STOP_AT").is_some_and(|at| at == stage) {
        if let Some(path) = std::env::var_os("RDBKEEPER_STOPPED") {
            let _ = std::fs::write(path, stage);
        }
        loop {
            std::thread::park();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = stage;
}
