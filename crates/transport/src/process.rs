//! A child process, held by its pidfd.
//!
//! Takes a started process, hands back its end, reaped and without descendants, to any number of waiters; kills it when
//! dropped.
//! Knows nothing of what the process does.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use tokio::io::unix::AsyncFd;
use tokio::sync::{oneshot, watch};

use crate::descendants::{self, Mark, end_descendants};
use crate::socket::readable;

/// How long a zygote may take to reap a child that has ended, and to end what it started, before it is taken for gone
/// without a status.
const REAP_MAX: Duration = Duration::from_secs(5);

/// How a worker process ended. It is reaped and what it started has ended: its memory may be used again, its batches may
/// run elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this status.
    Status(i32),
    /// This signal ended it.
    Signal(i32),
    /// It is gone; how is not known (its zygote died with it).
    Unknown,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Status(status) => write!(f, "exited with status {status}"),
            Exit::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Exit::Unknown => f.write_str("is gone"),
        }
    }
}

/// Who waits for the process, as only a parent can, and ends its descendants.
#[derive(Debug)]
pub(crate) enum Reaper {
    /// This process is the parent. A process without a mark has no descendants of its own.
    Us(Option<Mark>),
    /// A zygote is; it tells the raw wait status. Where it is gone the descendants are left to this process.
    Zygote(oneshot::Receiver<i32>, Mark),
}

/// A process that was started for us.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Begins to wait for its end. Must be called inside a tokio runtime.
    pub(crate) fn new(pid: u32, pidfd: OwnedFd, reaper: Reaper) -> std::io::Result<Process> {
        let pidfd = Arc::new(readable(pidfd)?);
        let (sender, exit) = watch::channel(None);
        let ended = pidfd.clone();
        tokio::spawn(async move {
            let exit = wait(pid, &ended, reaper).await;
            sender.send_replace(Some(exit));
        });
        Ok(Process { pid, pidfd, exit })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn kill(&self) {
        // The only failure is that it has ended already.
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }

    pub(crate) fn exited(&self) -> impl Future<Output = Exit> + Send + use<> {
        let mut exit = self.exit.clone();
        async move {
            // An error means that the runtime dropped the waiting task: the process as a whole is ending.
            exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown)
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exit.borrow().is_none() {
            self.kill();
        }
    }
}

async fn wait(pid: u32, ended: &AsyncFd<OwnedFd>, reaper: Reaper) -> Exit {
    // Readable once the last thread is gone; a pidfd is never read, so the readiness is left as it is.
    if ended.readable().await.is_err() {
        return Exit::Unknown;
    }
    match reaper {
        Reaper::Us(mark) => {
            if let Some(mark) = mark {
                let there = is_unreaped(ended.get_ref());
                blocking(move || if there { end_descendants(pid, mark) } else { descendants::sweep(mark) })
                    .await;
            }
            match waitid(WaitId::PidFd(ended.get_ref().as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                    (Some(status), _) => Exit::Status(status),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Unknown,
                },
                // Somebody else in this process waited for all children: it is reaped, its status is lost.
                Ok(None) | Err(_) => Exit::Unknown,
            }
        }
        Reaper::Zygote(status, mark) => match tokio::time::timeout(REAP_MAX, status).await {
            Ok(Ok(status)) if libc::WIFEXITED(status) => Exit::Status(libc::WEXITSTATUS(status)),
            Ok(Ok(status)) if libc::WIFSIGNALED(status) => Exit::Signal(libc::WTERMSIG(status)),
            _ => {
                blocking(move || descendants::sweep(mark)).await;
                Exit::Unknown
            }
        },
    }
}

/// Whether a child that has ended waits for being reaped, and nobody else has its number: a program around this one may
/// reap every child, or have SIGCHLD ignored, which reaps them at once.
pub(crate) fn is_unreaped(pidfd: &OwnedFd) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::PidFd(pidfd.as_fd()), look), Ok(Some(_)))
}

/// Runs `act` where it holds up no request.
async fn blocking(act: impl FnOnce() + Send + 'static) {
    // It fails where the runtime ends: the whole process does.
    let _ = tokio::task::spawn_blocking(act).await;
}
