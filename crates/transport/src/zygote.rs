//! The gateway's end of a zygote: a single-threaded process that forks workers on request.
//!
//! Takes environments and descriptors, hands back processes and, later, their ends.
//! Knows nothing of Python: a zygote is whatever answers these messages.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::descendants::Mark;
use crate::log::{Source, follow};
use crate::socket::{self, Fds, PACKET_MAX};
use crate::spawn::{Program, SpawnThread};

/// Forks that wait at most; waiting is right, a fork takes a millisecond once the zygote is up.
const WAITING_MAX: usize = 64;
/// Forks that the zygote is asked for before it has answered. It reads nothing while it starts or ends a worker's children, and
/// its socket holds about a hundred requests.
const OUTSTANDING_MAX: usize = 16;
/// How long a zygote may take to end after its channel has: it ends its workers and what they started, which takes some
/// milliseconds.
const END_MAX: Duration = Duration::from_secs(5);

/// A zygote that runs.
#[derive(Debug)]
pub(crate) struct Zygote {
    orders: mpsc::Sender<ForkRequest>,
    task: JoinHandle<()>,
}

/// A worker that a zygote forked.
#[derive(Debug)]
pub(crate) struct Forked {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) status: oneshot::Receiver<i32>,
}

type Reply = oneshot::Sender<io::Result<Forked>>;

#[derive(Debug)]
struct ForkRequest {
    fork: Fork,
    channel: OwnedFd,
    output: OwnedFd,
    reply: Reply,
}

#[derive(Debug, Serialize)]
struct Fork {
    env: BTreeMap<String, String>,
    directory: Option<PathBuf>,
    cpus: Vec<usize>,
    nice: i32,
    mark: Option<Mark>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Ask<'a> {
    Fork(&'a Fork),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ZygoteMessage {
    Forked { pid: u32 },
    Exited { exited: Exited },
    Failed { error: String },
}

#[derive(Debug, Deserialize)]
struct Exited {
    pid: u32,
    status: i32,
}

impl Zygote {
    pub(crate) async fn start(
        thread: &SpawnThread,
        command: Vec<String>,
        env: BTreeMap<String, String>,
    ) -> io::Result<Zygote> {
        let (socket, channel) = socket::pair()?;
        let (log, output) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let program =
            Program { command, env, directory: None, cpus: vec![], nice: 0, channel, output, mark: None };
        let process = thread.start(program).await?.watch()?;
        let socket = socket::readable(socket)?;
        let source = Source { model: "zygote".into(), version: 0, replica: 0 };
        tokio::spawn(follow(log, source, process.exited()));
        let (orders, waiting) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(async move {
            let (queued, replies) = (VecDeque::new(), VecDeque::new());
            Client { socket, queued, replies, children: HashMap::new() }.run(waiting).await;
            // Its socket is closed: it ends by itself, or is killed.
            if tokio::time::timeout(END_MAX, process.exited()).await.is_err() {
                process.kill();
                process.exited().await;
            }
        });
        Ok(Zygote { orders, task })
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.orders.is_closed()
    }

    /// Where requests to fork go in. Holding it keeps the zygote alive.
    pub(crate) fn forks(&self) -> Forks {
        Forks(self.orders.clone())
    }

    /// Ends it and waits until it is gone.
    pub(crate) async fn close(self) {
        drop(self.orders);
        let _ = self.task.await;
    }
}

/// The way to a zygote for requests to fork.
pub(crate) struct Forks(mpsc::Sender<ForkRequest>);

impl Forks {
    /// Has it fork a worker of the program.
    pub(crate) async fn fork(self, program: Program) -> io::Result<Forked> {
        let Program { command: _, env, directory, cpus, nice, channel, output, mark } = program;
        let ended = || io::Error::other("the zygote exited; see its log output");
        let (reply, forked) = oneshot::channel();
        let fork = Fork { env, directory, cpus, nice, mark };
        let order = ForkRequest { fork, channel, output, reply };
        self.0.send(order).await.map_err(|_| ended())?;
        // What keeps the zygote alive is its owner's.
        drop(self);
        forked.await.map_err(|_| ended())?
    }
}

/// Talks to one zygote until either side has had enough.
struct Client {
    socket: AsyncFd<OwnedFd>,
    /// Requests that are not sent yet.
    queued: VecDeque<ForkRequest>,
    /// Who asked; answers come in the order of the questions.
    replies: VecDeque<Reply>,
    /// Who waits for the end of which child.
    children: HashMap<u32, oneshot::Sender<i32>>,
}

impl Client {
    async fn run(mut self, mut orders: mpsc::Receiver<ForkRequest>) {
        let mut buffer = vec![0; PACKET_MAX];
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => {
                        self.queued.push_back(order);
                        self.send_queued();
                    }
                    None => return,
                },
                ready = self.socket.readable() => {
                    let Ok(mut ready) = ready else { return };
                    let mut fds = Fds::new();
                    let received = socket::receive(ready.get_inner(), &mut buffer, Some(&mut fds));
                    match received {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                        Ok(0) | Err(_) => return,
                        Ok(length) => {
                            drop(ready);
                            if let Err(problem) = self.hear(&buffer[..length], fds) {
                                tracing::error!("a zygote sent an invalid frame and is ended: {problem}");
                                return;
                            }
                            self.send_queued();
                        }
                    }
                }
            }
        }
    }

    fn send_queued(&mut self) {
        while self.replies.len() < OUTSTANDING_MAX
            && let Some(order) = self.queued.pop_front()
        {
            self.ask(order);
        }
    }

    fn ask(&mut self, order: ForkRequest) {
        let fds = [order.channel.as_fd(), order.output.as_fd()];
        match socket::send(self.socket.get_ref(), &Ask::Fork(&order.fork), &fds) {
            Ok(()) => self.replies.push_back(order.reply),
            // Nobody waits any more where this fails.
            Err(error) => drop(order.reply.send(Err(error))),
        }
    }

    fn hear(&mut self, packet: &[u8], fds: Fds) -> Result<(), String> {
        match serde_json::from_slice(packet).map_err(|error| error.to_string())? {
            ZygoteMessage::Forked { pid } => {
                let reply = self.replies.pop_front().ok_or("an answer nobody asked for")?;
                let pidfd = fds.into_iter().next().ok_or("a child without a pidfd")?;
                let (sender, status) = oneshot::channel();
                self.children.insert(pid, sender);
                // Where nobody waits any more, the child's channel is closed and it ends by itself.
                let _ = reply.send(Ok(Forked { pid, pidfd, status }));
            }
            ZygoteMessage::Failed { error } => {
                let reply = self.replies.pop_front().ok_or("an answer nobody asked for")?;
                let _ = reply.send(Err(io::Error::other(error)));
            }
            ZygoteMessage::Exited { exited } => {
                if let Some(waiter) = self.children.remove(&exited.pid) {
                    let _ = waiter.send(exited.status);
                }
            }
        }
        Ok(())
    }
}
