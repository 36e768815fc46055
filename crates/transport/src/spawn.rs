//! Starts processes, from one thread that lives as long as they do.
//!
//! Takes a program and what it may have, hands back its pid and pidfd.
//! Knows nothing of models and of what the processes say.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::sync::{mpsc, oneshot};

use crate::descendants::{Mark, end_descendants};
use crate::process::{Process, Reaper, is_unreaped};

/// Starts that wait for the thread at most; a start takes about a millisecond, so waiting is right.
const WAITING_MAX: usize = 64;

/// Owns the thread that starts processes. Clones share it. What it started ends with the thread, which ends with the last
/// clone.
#[derive(Clone, Debug)]
pub(crate) struct SpawnThread {
    orders: mpsc::Sender<StartRequest>,
}

#[derive(Debug)]
struct StartRequest {
    program: Program,
    reply: oneshot::Sender<io::Result<Started>>,
}

/// A process that nobody looks after yet: dropping this ends and reaps it.
#[derive(Debug)]
pub(crate) struct Started {
    pid: u32,
    pidfd: Option<OwnedFd>,
    mark: Option<Mark>,
}

impl Started {
    /// Has its end waited for from now on. Must be called inside a tokio runtime.
    pub(crate) fn watch(mut self) -> io::Result<Process> {
        let pidfd = self.pidfd.take().ok_or(io::ErrorKind::NotFound)?;
        Process::new(self.pid, pidfd, Reaper::Us(self.mark))
    }
}

#[cfg(test)]
impl Started {
    /// Its number, and what it is watched by.
    pub(crate) fn take(mut self) -> (u32, OwnedFd) {
        (self.pid, self.pidfd.take().expect("it is taken once"))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            // Both fail only for a process that is gone already; a killed one does not keep us waiting.
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            if let (true, Some(mark)) = (is_unreaped(pidfd), self.mark) {
                end_descendants(self.pid, mark);
            }
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

/// What to start.
#[derive(Debug)]
pub(crate) struct Program {
    /// The program and its arguments; the number of `channel` is put behind them.
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) directory: Option<PathBuf>,
    /// Cores to be pinned to; empty: all.
    pub(crate) cpus: Vec<usize>,
    /// How much nicer it is than this process.
    pub(crate) nice: i32,
    /// The one descriptor it inherits besides its standard streams.
    pub(crate) channel: OwnedFd,
    /// Becomes its standard output and standard error.
    pub(crate) output: OwnedFd,
    /// What its descendants are known by; none for a zygote, whose children have marks of their own.
    pub(crate) mark: Option<Mark>,
}

/// What a terminal and systemd send to every process of a server. It drains; workers run until their channels close.
///
/// Programs start with these blocked, since the default would end them, and unblock them once they have a handler that
/// does nothing. Ignored ones would stay ignored in whatever a model starts, and its children could not be terminated.
const ENDING: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

impl SpawnThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn new() -> io::Result<SpawnThread> {
        let (orders, mut waiting) = mpsc::channel::<StartRequest>(WAITING_MAX);
        std::thread::Builder::new().name("inferd-spawner".into()).spawn(move || {
            // Parent-death signals follow the thread that forked: this one must outlive what it starts.
            while let Some(order) = waiting.blocking_recv() {
                // Where nobody waits any more the process ends with the reply.
                let _ = order.reply.send(start(order.program));
            }
        })?;
        Ok(SpawnThread { orders })
    }

    pub(crate) async fn start(&self, program: Program) -> io::Result<Started> {
        let gone = || io::Error::other("the thread that starts processes is gone");
        let (reply, started) = oneshot::channel();
        self.orders.send(StartRequest { program, reply }).await.map_err(|_| gone())?;
        started.await.map_err(|_| gone())?
    }
}

/// Starts a process that ends with this thread.
pub(crate) fn start(program: Program) -> io::Result<Started> {
    let (path, arguments) = program.command.split_first().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "the command to start a worker is empty")
    })?;
    let mut command = Command::new(path);
    command.args(arguments).arg(program.channel.as_raw_fd().to_string());
    command.env_clear().envs(&program.env);
    if let Some(directory) = &program.directory {
        command.current_dir(directory);
    }
    command.stdin(Stdio::null()).stdout(program.output.try_clone()?).stderr(program.output);
    // A group of its own: Ctrl-C at the terminal is for the gateway, which drains first. What a worker starts is in it.
    command.process_group(0);
    let setup = Setup {
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        channel: program.channel.as_raw_fd(),
        cpus: cpu_set(&program.cpus)?,
        nice: program.nice,
        mark: program.mark,
    };
    // SAFETY: `Setup::run` only makes system calls, on values that were made before the fork: it takes no lock and
    // no memory, which another thread may have held at the fork.
    unsafe { command.pre_exec(move || setup.run()) };
    let mut child =
        command.spawn().map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
    let pid = child.id();
    // Nobody else waits for this child, so the number can't have been used again.
    let pidfd = Pid::from_raw(pid as i32)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    match pidfd {
        Ok(pidfd) => Ok(Started { pid, pidfd: Some(pidfd), mark: program.mark }),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error.into())
        }
    }
}

/// The cores as the system wants them.
fn cpu_set(cpus: &[usize]) -> io::Result<Option<libc::cpu_set_t>> {
    if cpus.is_empty() {
        return Ok(None);
    }
    // SAFETY: a set of cores is a plain array of bits; all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for cpu in cpus {
        if *cpu >= libc::CPU_SETSIZE as usize {
            let text = format!("there is no core {cpu}; correct pin");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        // SAFETY: the bit is inside the set, as was just checked.
        unsafe { libc::CPU_SET(*cpu, &mut set) };
    }
    Ok(Some(set))
}

/// What the child does between fork and exec.
struct Setup {
    parent: i32,
    channel: RawFd,
    cpus: Option<libc::cpu_set_t>,
    nice: i32,
    mark: Option<Mark>,
}

impl Setup {
    fn run(&self) -> io::Result<()> {
        let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: plain system calls with numbers and pointers to values that live across the call.
        unsafe {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong))?;
            // The parent may have died before that call, and then nothing is sent any more.
            if libc::getppid() != self.parent {
                libc::_exit(1);
            }
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            check(libc::setrlimit(libc::RLIMIT_CORE, &no_core))?;
            if let Some(mark) = self.mark {
                mark.set();
            }
            // Behind the standard library's own reset of the mask.
            let mut ending: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut ending);
            for signal in ENDING {
                libc::sigaddset(&mut ending, signal);
            }
            check(libc::sigprocmask(libc::SIG_BLOCK, &ending, std::ptr::null_mut()))?;
            // Where it is ignored nobody can wait for a child, and a zygote and models do.
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            // Raising the niceness can't fail. The return value is the new niceness, which may be any number.
            libc::nice(self.nice);
            if let Some(cpus) = &self.cpus {
                check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cpus))?;
            }
            // Whatever else this process has open stays here; kernels before 5.11 rely on everybody's own flag.
            let _ = libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            check(libc::fcntl(self.channel, libc::F_SETFD, 0))
        }
    }
}
