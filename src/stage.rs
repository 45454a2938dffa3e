//! Named points at which a test can stop a process, to kill it there, or do something itself. Release builds carry none of it.

/// What tests of this process do at a stage.
#[cfg(debug_assertions)]
type Hooks = Vec<(String, std::sync::Arc<dyn Fn() + Send + Sync>)>;
#[cfg(debug_assertions)]
static HOOKS: std::sync::Mutex<Hooks> = std::sync::Mutex::new(Vec::new());
/// Whether the process was paused already: it is once.
#[cfg(debug_assertions)]
static PAUSED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// From now on `hook` runs whenever this stage is reached in this process. For tests, in debug builds.
#[cfg(debug_assertions)]
pub fn at(stage: &str, hook: impl Fn() + Send + Sync + 'static) {
    if let Ok(mut hooks) = HOOKS.lock() {
        hooks.push((stage.to_owned(), std::sync::Arc::new(hook)));
    }
}

/// Says that a stage is reached. In a debug build a process whose `RDBKEEPER_STOP_AT` names the stage
/// creates the file that `RDBKEEPER_STOPPED` names and then stands still until it is killed; one whose
/// `RDBKEEPER_PAUSE_AT` names it does the same the first time, and goes on at SIGCONT.
#[inline]
pub fn reached(stage: &str) {
    #[cfg(debug_assertions)]
    {
        let hooks = HOOKS.lock().map(|hooks| hooks.clone());
        for (_, hook) in hooks.iter().flatten().filter(|(at, _)| at == stage) {
            hook();
        }
    }
    #[cfg(debug_assertions)]
    if std::env::var_os("RDBKEEPER_STOP_AT").is_some_and(|at| at == stage) {
        if let Some(path) = std::env::var_os("RDBKEEPER_STOPPED") {
            let _ = std::fs::write(path, stage);
        }
        loop {
            std::thread::park();
        }
    }
    #[cfg(debug_assertions)]
    if std::env::var_os("RDBKEEPER_PAUSE_AT").is_some_and(|at| at == stage)
        && !PAUSED.swap(true, std::sync::atomic::Ordering::SeqCst)
    {
        if let Some(path) = std::env::var_os("RDBKEEPER_STOPPED") {
            let _ = std::fs::write(path, stage);
        }
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::STOP);
    }
    #[cfg(not(debug_assertions))]
    let _ = stage;
}
