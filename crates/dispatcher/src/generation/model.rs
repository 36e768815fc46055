//! One loaded model version as everybody outside its task holds it.
//!
//! Reads what the task publishes, hands requests to its intake. Knows nothing of names, versions or routes.

use std::sync::Arc;

use inferd_types::Clock;
use inferd_types::settings::ModelSettings;

use crate::generation::published::Published;
use crate::intake::entry::Intake;
use crate::observe::events::GenerationEvents;
use crate::observe::observer::ModelObserver;

/// See the module.
pub(crate) struct Model {
    pub(crate) published: Arc<Published>,
    pub(crate) intake: Arc<Intake>,
}

impl Model {
    pub(crate) fn new(
        settings: ModelSettings,
        observer: Arc<dyn ModelObserver>,
        events: GenerationEvents,
        clock: Clock,
    ) -> Model {
        let published = Arc::new(Published::new(settings, observer, events));
        let intake = Arc::new(Intake::new(published.clone(), clock));
        Model { published, intake }
    }
}
