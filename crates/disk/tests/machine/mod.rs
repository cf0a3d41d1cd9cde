//! What a test needs of the machine it runs on, and what happens where that is not there.

/// A test, or a part of it, cannot run here for want of this capability. Where `RINGBOLT_REQUIRE` names it
/// (`loop,memory`) that is a failure, so that no test disappears unseen; elsewhere the output says so.
pub(crate) fn lacks(capability: &str, why: &str) {
    let required = std::env::var("RINGBOLT_REQUIRE").unwrap_or_default();
    let is_required = required.split(',').any(|name| name.trim() == capability);
    assert!(!is_required, "{capability} is required here: {why}");
    eprintln!("skipped: {capability}: {why}");
}
