//! Turns: runs that wait are started one after the other, when neither a run nor a study trains.

use crate::state::Shared;
use std::time::Duration;
use tokio::time::sleep;

/// Time between two looks at whose turn it is.
const EVERY: Duration = Duration::from_millis(500);
/// Time after a run that could not be started.
const PAUSE: Duration = Duration::from_secs(10);

/// Starts whose turn it is, for ever.
pub async fn take_turns(app: Shared) {
    loop {
        sleep(EVERY).await;
        if app.follower.queued().is_empty() || app.studies.check_free().await.is_err() {
            continue;
        }
        if let Err(error) = app.supervisor.take_turn().await {
            tracing::error!("a run that waited cannot be started: {error:#}");
            sleep(PAUSE).await;
        }
    }
}
