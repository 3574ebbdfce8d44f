//! The child process: started, watched, ended and reaped.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kingpole_values::{Error, Result};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;

use super::channel::Channel;
use super::watched::watch;

/// A worker process. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct WorkerProcess {
    pid: u32,
    pidfd: Arc<OwnedFd>,
    child: Mutex<Option<Child>>,
}

impl WorkerProcess {
    /// Start `command`, with `--fd N` appended: the number of its end of the socket.
    ///
    /// With `loads_beside` also `--load-fd N`, a second socket on which models are loaded while batches run; our
    /// end of it is the second channel given.
    ///
    /// The environment is ours with `environment` laid over it. The process ends when we do, and a
    /// Ctrl-C at the terminal reaches only us: it has a process group of its own.
    pub fn spawn(
        command: &[String],
        environment: &BTreeMap<String, String>,
        loads_beside: bool,
    ) -> Result<(Self, Channel, Option<Channel>)> {
        let [program, arguments @ ..] = command else {
            return Err(Error::internal("the worker command is empty"));
        };
        let refuse = |error: io::Error| Error::unavailable(format!("the worker cannot be started: {error}"));
        let (channel, theirs) = Channel::pair().map_err(refuse)?;
        let (load_channel, load_theirs) = if loads_beside {
            let (ours, theirs) = Channel::pair().map_err(refuse)?;
            (Some(ours), Some(theirs))
        } else {
            (None, None)
        };
        let mut prepared = Command::new(program);
        prepared
            .args(arguments)
            .arg("--fd")
            .arg(theirs.as_raw_fd().to_string())
            .args(load_theirs.iter().flat_map(|fd| ["--load-fd".to_owned(), fd.as_raw_fd().to_string()]))
            .envs(environment)
            .stdin(Stdio::null())
            .process_group(0);
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec the closure makes system calls only; it neither allocates
        // nor takes a lock.
        unsafe {
            prepared.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before that took effect.
                if rustix::process::getppid() != Some(parent) {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                for fd in std::iter::once(&theirs).chain(&load_theirs) {
                    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
                }
                Ok(())
            });
        }
        let mut child = start(prepared).map_err(refuse)?;
        let pid = child.id();
        match pidfd(pid) {
            Ok(pidfd) => {
                let process = Self { pid, pidfd: Arc::new(pidfd), child: Mutex::new(Some(child)) };
                Ok((process, channel, load_channel))
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(refuse(error))
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kill it and its whole process group. Does nothing if it has been reaped.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = &mut *child {
            // Not reaped yet, for that takes this lock: the number is still its own.
            kill_group(child);
        }
    }

    /// Wait until it has ended, and reap it. Needs a tokio runtime with I/O.
    ///
    /// Gives a description such as `exited with 1` or `was killed by signal 9`.
    ///
    /// What it has started and left in its process group is killed: it may hold its sockets and memory.
    pub async fn wait(&self) -> String {
        loop {
            let watched = watch(&self.pidfd, Interest::READABLE);
            match watched {
                // Readable once the process has ended.
                Ok(watched) => match watched.readable().await {
                    Ok(_) => {}
                    Err(error) => return format!("cannot be watched: {error}"),
                },
                Err(error) => return format!("cannot be watched: {error}"),
            }
            self.kill_group_of_the_ended();
            if let Some(ended) = self.try_wait() {
                return ended;
            }
        }
    }

    fn kill_group_of_the_ended(&self) {
        let held = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // Not reaped yet, so that the number is still its own.
        if held.is_some()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    /// How it ended, if it has.
    pub fn try_wait(&self) -> Option<String> {
        let mut held = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(child) = &mut *held else { return Some("has ended".to_owned()) };
        match child.try_wait() {
            Ok(None) => None,
            // `Child` keeps the status, so asking again gives the same.
            Ok(Some(status)) => Some(describe(status)),
            Err(error) => Some(format!("cannot be waited for: {error}")),
        }
    }
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut child) = child else { return };
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        kill_group(&mut child);
        // A process in the kernel's hands may take a while to go; nobody should wait for that here.
        let reap = std::thread::Builder::new().name("kingpole-reap".to_owned());
        let _ = reap.spawn(move || child.wait());
    }
}

fn kill_group(child: &mut Child) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
    // Should it have left its group.
    let _ = child.kill();
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

type Start = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Start a process from a thread that lives as long as we do.
///
/// The kernel sends the parent death signal when the *thread* that started a child ends, and
/// whoever loads a model may be a thread that soon does.
fn start(command: Command) -> io::Result<Child> {
    static THREAD: OnceLock<Mutex<mpsc::Sender<Start>>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts workers has ended");
    let thread = THREAD.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Start>();
        let builder = std::thread::Builder::new().name("kingpole-start".to_owned());
        // Should the thread not start, the receiver is gone, and so every send fails.
        let _ = builder.spawn(move || {
            while let Ok((mut command, answer)) = receiver.recv() {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, started) = mpsc::sync_channel(1);
    let sender = thread.lock().unwrap_or_else(PoisonError::into_inner).clone();
    sender.send((command, answer)).map_err(|_| gone())?;
    started.recv().map_err(|_| gone())?
}
