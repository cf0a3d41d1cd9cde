//! Tests that may sleep for ever, or change their process.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

/// Run a case that may wait for ever, which is how a lost wake shows: then it fails by its name, and its
/// process with it, as a thread that sleeps cannot be ended.
pub(crate) fn watched(name: &str, case: impl FnOnce() + Send + 'static) {
    // Far more than any case takes on a slow disk, beside other tests.
    const PATIENCE: Duration = Duration::from_mins(5);
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let work = move || {
        // Dropped at the end of the case, whichever way it ends.
        let _ended = ended;
        case();
    };
    let thread = std::thread::Builder::new().name(name.into()).spawn(work).unwrap();
    if end.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        // Past the test's captured output, which is lost with the process.
        let _ = writeln!(std::io::stderr(), "{name} did not end within {PATIENCE:?}");
        std::process::abort();
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Run `body` in a process of its own, which is this test once more: it changes limits of the process.
pub(crate) fn in_a_child(test: &str, body: impl FnOnce()) {
    const CHILD: &str = "RINGBOLT_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    // The shell makes the child ignore SIGXFSZ, which plain writes above the limit raise and which would
    // end it; what is ignored stays so across `exec`.
    // Its output goes through a pipe: a file it shares with us would fall under its limits.
    let output = Command::new("/bin/sh")
        .args(["-c", r#"trap "" XFSZ; exec "$@""#, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    assert!(said(&output.stdout).contains("1 passed"), "the child did not find its test");
}
