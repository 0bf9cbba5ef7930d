//! The children: started when there is work, reused for one tenant's jobs, let go of after a while.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::child::SUBCOMMAND;
use super::frame;
use super::job::{Asked, Told, Work};

/// Jobs of a child before another takes its place.
const MAX_JOBS: usize = 32;
/// What a child may still need beyond its time of computing, to be told and to tell.
const GRACE: Duration = Duration::from_secs(2);

/// How a child is started.
#[derive(Debug, Clone)]
pub struct Start {
    pub program: PathBuf,
    pub memory_bytes: u64,
}

/// Why a job has no answer.
#[derive(Debug)]
pub enum Lost {
    Memory,
    Time,
    /// It could not be started, or broke off.
    Broken(String),
}

/// A child that is alive.
pub struct Worker {
    pub tenant: Arc<str>,
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
    jobs: usize,
}

impl Worker {
    pub fn start(start: &Start, tenant: Arc<str>) -> Result<Self, Lost> {
        let mut command = Command::new(&start.program);
        command
            .arg(SUBCOMMAND)
            .arg(start.memory_bytes.to_string())
            .env_clear()
            // Its allocator must not set aside what the limits would refuse.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let broken = |why: io::Error| Lost::Broken(why.to_string());
        let mut child = command.spawn().map_err(broken)?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Lost::Broken("no way to speak with it".to_owned()));
        };
        Ok(Self {
            tenant,
            child,
            to,
            from,
            jobs: 0,
        })
    }

    /// Whether it may do another job of this tenant.
    pub fn serves(&mut self, tenant: &Arc<str>) -> bool {
        self.tenant == *tenant && self.jobs < MAX_JOBS && matches!(self.child.try_wait(), Ok(None))
    }

    /// Does a job; whoever gets an error lets go of this child.
    pub async fn run(
        &mut self,
        work: Work,
        body: &[u8],
        limit: Duration,
    ) -> Result<(Told, Vec<u8>), Lost> {
        self.jobs += 1;
        let asked = Asked {
            work,
            seconds: limit.as_secs().max(1),
        };
        let begin = frame::begin(&asked, body).map_err(|e| Lost::Broken(e.to_string()))?;
        let exchange = async {
            self.to.write_all(&begin).await?;
            self.to.write_all(body).await?;
            self.to.flush().await?;
            frame::read_async(&mut self.from).await
        };
        match tokio::time::timeout(limit + GRACE, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.cause(&error).await),
            Err(_) => Err(Lost::Time),
        }
    }

    /// Why it went away.
    async fn cause(&mut self, error: &io::Error) -> Lost {
        let ended = tokio::time::timeout(GRACE, self.child.wait()).await;
        match ended {
            Ok(Ok(status)) => cause_of(status, error),
            _ => Lost::Broken(error.to_string()),
        }
    }
}

#[cfg(unix)]
fn cause_of(status: ExitStatus, error: &io::Error) -> Lost {
    use rustix::process::Signal;
    use std::os::unix::process::ExitStatusExt;
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    if is(Signal::XCPU) {
        return Lost::Time;
    }
    // An allocation that failed, or a stack that ran over, aborts.
    if [
        Signal::ABORT,
        Signal::SEGV,
        Signal::BUS,
        Signal::KILL,
        Signal::ILL,
    ]
    .into_iter()
    .any(is)
    {
        return Lost::Memory;
    }
    Lost::Broken(format!("{error} ({status})"))
}

#[cfg(not(unix))]
fn cause_of(status: ExitStatus, error: &io::Error) -> Lost {
    Lost::Broken(format!("{error} ({status})"))
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The whole group; the child itself is also killed when its handle is dropped.
        #[cfg(unix)]
        if let Some(group) = self
            .child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}
