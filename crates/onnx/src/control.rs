//! Stops a run from another thread.
//!
//! Reads a request to stop, hands on a flag that the runtime checks between operators. Does not know why a run
//! should stop.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort_sys::OrtRunOptions;

use crate::api::{Api, Failure, Owned};

/// Stops the current run, if there is one. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Terminator(Arc<RunControl>);

struct RunControl {
    api: Api,
    options: Owned<OrtRunOptions>,
    state: Mutex<RunState>,
}

#[derive(Default)]
struct RunState {
    running: bool,
    asked: bool,
}

// SAFETY: the run options are only changed under the mutex (`stop`, `begin`, `end`); the runtime reads its flag
// during a run, for which it is documented that another thread may set it. The API's table is immutable.
unsafe impl Send for RunControl {}
// SAFETY: as above.
unsafe impl Sync for RunControl {}

impl Terminator {
    pub(crate) fn new(api: Api) -> Result<Terminator, Failure> {
        let table = api.table();
        let options = api.create(table.ReleaseRunOptions, |out| {
            // SAFETY: `out` is a place for the result.
            unsafe { (table.CreateRunOptions)(out) }
        })?;
        // Failures are reported with their request; the runtime's own log line would be a second one.
        const FATAL: i32 = ort_sys::OrtLoggingLevel::ORT_LOGGING_LEVEL_FATAL as i32;
        // SAFETY: the options are alive and not shared yet.
        api.check(unsafe { (table.RunOptionsSetRunLogSeverityLevel)(options.as_ptr(), FATAL) })?;
        Ok(Terminator(Arc::new(RunControl { api, options, state: Mutex::default() })))
    }

    /// Stops the current run. Without one it has no effect, so that a late call does not hit the next run.
    pub fn stop(&self) {
        let mut state = self.state();
        if state.running && !state.asked {
            // SAFETY: the options are alive and changed under the mutex only.
            let status = unsafe { (self.0.api.table().RunOptionsSetTerminate)(self.options().as_ptr()) };
            state.asked = self.0.api.check(status).is_ok();
        }
    }

    /// Marks the beginning of a run.
    pub(crate) fn begin(&self) -> Result<(), Failure> {
        let mut state = self.state();
        if state.asked {
            // SAFETY: the options are alive and changed under the mutex only.
            let status = unsafe { (self.0.api.table().RunOptionsUnsetTerminate)(self.options().as_ptr()) };
            self.0.api.check(status)?;
        }
        *state = RunState { running: true, asked: false };
        Ok(())
    }

    /// Marks the end of a run and returns whether it was stopped.
    pub(crate) fn end(&self) -> bool {
        let mut state = self.state();
        state.running = false;
        state.asked
    }

    /// The options to run with.
    pub(crate) fn options(&self) -> NonNull<OrtRunOptions> {
        NonNull::new(self.0.options.as_ptr()).expect("an owner holds no null")
    }

    fn state(&self) -> MutexGuard<'_, RunState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
