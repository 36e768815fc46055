//! Starts worker processes: programs, or forks of a zygote.
//!
//! Reads what to start, hands on processes. Knows nothing of models and of what the processes say.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::spawn::{Program, SpawnThread, Started};
use crate::zygote::{Forked, Zygote};

/// Owns the thread that starts worker processes, and the zygotes. Clones share them. Workers end with the thread,
/// which ends with the last clone; every [`crate::Worker`] keeps one.
#[derive(Clone, Debug)]
pub struct Spawner {
    thread: SpawnThread,
    /// By the command that starts it.
    zygotes: Arc<Mutex<HashMap<Vec<String>, Zygote>>>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn new() -> io::Result<Spawner> {
        Ok(Spawner { thread: SpawnThread::new()?, zygotes: Arc::default() })
    }

    /// Ends the zygotes and waits until they are gone. Later starts begin new ones.
    pub async fn close(&self) {
        let zygotes = std::mem::take(&mut *self.zygotes.lock().await);
        for zygote in zygotes.into_values() {
            zygote.close().await;
        }
    }

    pub(crate) async fn start(&self, program: Program) -> io::Result<Started> {
        self.thread.start(program).await
    }

    /// Has the zygote of the program's command fork a worker; starts the zygote if it does not run.
    pub(crate) async fn fork(&self, program: Program) -> io::Result<Forked> {
        let forks = {
            let mut zygotes = self.zygotes.lock().await;
            match zygotes.get(&program.command).filter(|zygote| zygote.is_running()) {
                Some(zygote) => zygote.forks(),
                None => {
                    // It has the environment of the model that needs it first; each fork gets its own model's.
                    let (command, env) = (program.command.clone(), program.env.clone());
                    let zygote = Zygote::start(&self.thread, command, env).await?;
                    let forks = zygote.forks();
                    zygotes.insert(program.command.clone(), zygote);
                    forks
                }
            }
        };
        forks.fork(program).await
    }
}
