//! The threads that the data plane runs on, and how Python's threads wait for them.
//!
//! Reads a number of threads, runs futures on them. Knows nothing of what the futures do.

use std::thread::JoinHandle;

use inferd_dispatcher::Moderation;
use inferd_types::{Error, ErrorKind, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// A runtime on threads of its own. Dropping it ends them.
pub(crate) struct Threads {
    handle: Handle,
    // Dropped to stop; taken by `drop`.
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Threads {
    /// Starts `threads` threads. One that is alone rests as `moderation` says; several have cores to spare.
    pub(crate) fn start(threads: usize, moderation: Moderation) -> Result<Threads> {
        let runtime = build(threads, moderation).map_err(cannot_start)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        // With one thread this is the reactor. With more, it owns them and waits.
        let thread = std::thread::Builder::new()
            .name("inferd-gateway".into())
            .spawn(move || {
                // Both a message and the sender's end are the sign to stop.
                let _ = runtime.block_on(stopped);
            })
            .map_err(cannot_start)?;
        Ok(Threads { handle, running: Some((stop, thread)) })
    }

    /// Runs `future` on these threads and waits for it. Not for use on these threads themselves.
    ///
    /// # Errors
    /// `Draining` where the threads end first.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        wait_on(&self.handle, future)
    }

    /// The runtime, to spawn tasks on it.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // A panic there has been printed; there is nothing else to do about it here.
            let _ = thread.join();
        }
    }
}

/// As [`Threads::wait`], through a handle that may outlive the threads.
pub(crate) fn wait_on<T: Send + 'static>(
    handle: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    handle.spawn(async move {
        // Nobody receives any more where the waiting thread was ended.
        let _ = sender.send(future.await);
    });
    receiver
        .blocking_recv()
        .map_err(|_| Error::new(ErrorKind::Draining, "the data plane was closed meanwhile"))
}

fn build(threads: usize, moderation: Moderation) -> std::io::Result<Runtime> {
    let mut builder;
    if threads <= 1 {
        // One thread needs none of the machinery by which several share work.
        builder = Builder::new_current_thread();
        builder.on_thread_park(move || moderation.rest());
    } else {
        builder = Builder::new_multi_thread();
        builder.worker_threads(threads);
    }
    builder.thread_name("inferd-gateway").enable_all().build()
}

fn cannot_start(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, format!("the data plane's threads could not be started: {error}"))
}
