//! A future that is polled only after its own waker fired.
//!
//! Reads a future, hands back the same one. Knows nothing of what it waits for.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Wakes a task, and remembers that it did.
#[derive(Default)]
pub(super) struct WakeFlag {
    fired: AtomicBool,
    task: AtomicWaker,
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.fired.store(true, Release);
        self.task.wake();
    }
}

/// `inner`, polled only after its waker fired. It stands beside a connection that wakes the task a hundred thousand
/// times a second, and would otherwise be polled as often.
pub(super) async fn when_woken<T>(flag: &Arc<WakeFlag>, inner: impl Future<Output = T>) -> T {
    let mut inner = pin!(inner);
    let waker = Waker::from(flag.clone());
    flag.fired.store(true, Release);
    poll_fn(|context| {
        if !flag.fired.swap(false, AcqRel) {
            return Poll::Pending;
        }
        flag.task.register(context.waker());
        inner.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}
