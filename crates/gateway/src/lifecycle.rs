//! The stages of a gateway's life.
//!
//! Written by [`crate::Gateway`] alone, watched by everything that ends when the server stops. Knows nothing of why it
//! stops.

use tokio::sync::watch;

/// The stage that the gateway is in. It only ever advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lifecycle {
    /// Takes connections and requests.
    Serving,
    /// Answers admitted requests and refuses new ones with a reason. It still accepts connections: a closed port would
    /// look like a fault to health checks.
    Draining,
    /// Every admitted request is answered: accepts no new connection.
    Closing,
    /// Closes the connections that are still open.
    Closed,
}

/// Waits until the server is in `stage` or a later one.
pub(crate) async fn reached(lifecycle: &mut watch::Receiver<Lifecycle>, stage: Lifecycle) {
    // The sender lives in `ServerState`, which the caller holds; without it the server is gone, so stopping is right.
    let _ = lifecycle.wait_for(|now| *now >= stage).await;
}
