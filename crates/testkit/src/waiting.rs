//! Waiting for conditions.

use std::future::Future;
use std::time::Duration;

/// Longer than anything that a test waits for takes; a test that waits as long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, looking whenever other tasks have had a turn.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What `future` gives.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}
