//! The child: a process of this binary that holds no configuration and no secret, sets its own
//! limits, and works through what it is given until its standard input ends.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use super::frame;
use super::job::{self, Asked, Told};

/// The word behind the program's name that makes it a child.
pub const SUBCOMMAND: &str = "sandbox-worker";

/// Parsers recurse.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// Runs a child; `memory` is what it may take, in bytes.
pub fn run(memory: Option<String>) -> ExitCode {
    let Some(memory) = memory.and_then(|bytes| bytes.parse::<u64>().ok()) else {
        eprintln!("this command is for the gateway itself");
        return ExitCode::FAILURE;
    };
    // Panics are answers here, and nobody reads what they print.
    std::panic::set_hook(Box::new(|_| {}));
    if confine(memory).is_err() {
        return ExitCode::FAILURE;
    }
    let main = std::thread::current();
    let worker = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let ended = work();
            main.unpark();
            ended
        });
    let Ok(worker) = worker else {
        return ExitCode::FAILURE;
    };
    // A node that was killed tells nobody; its end of the pipe is only seen between two jobs.
    let node = parent();
    while !worker.is_finished() {
        std::thread::park_timeout(LOOK_EVERY);
        if parent() != node {
            return ExitCode::FAILURE;
        }
    }
    match worker.join() {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// How often a child looks whether its node is still there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[cfg(unix)]
fn parent() -> u32 {
    std::os::unix::process::parent_id()
}

#[cfg(not(unix))]
fn parent() -> u32 {
    0
}

fn work() -> io::Result<()> {
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    loop {
        let (asked, body): (Asked, Vec<u8>) = match frame::read(&mut from) {
            Ok(frame) => frame,
            // The node has let go of this child.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        allow_seconds(asked.seconds)?;
        let done = catch_unwind(AssertUnwindSafe(|| job::run(&asked.work, &body)));
        let (told, body) = match done {
            Ok(Ok((told, body))) => (told, body),
            Ok(Err(refused)) => (Told::Refused(refused), Vec::new()),
            Err(_) => (Told::Refused(job::Refused::broken()), Vec::new()),
        };
        match body.len() > frame::MAX_BODY {
            true => frame::write(&mut to, &Told::Refused(job::Refused::too_much()), &[])?,
            false => frame::write(&mut to, &told, &body)?,
        }
    }
}

#[cfg(unix)]
fn confine(memory: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    #[cfg(target_os = "linux")]
    rustix::thread::set_no_new_privs(true)?;
    let fixed = |limit: u64| Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    setrlimit(Resource::Core, fixed(0))?;
    setrlimit(Resource::Fsize, fixed(0))?;
    setrlimit(Resource::Nofile, fixed(16))?;
    // Data is what a process writes to; address space also counts what is only set aside.
    setrlimit(Resource::Data, fixed(memory + STACK_BYTES as u64))?;
    setrlimit(Resource::As, fixed(memory + ADDRESSES))?;
    Ok(())
}

/// Addresses for the program itself and what its allocator sets aside, which take no memory.
#[cfg(unix)]
const ADDRESSES: u64 = 2 * 1024 * 1024 * 1024;

/// Ends the process when it has computed for so long from now on.
#[cfg(unix)]
fn allow_seconds(seconds: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let limit = Rlimit {
        current: Some(used.tv_sec as u64 + 1 + seconds),
        maximum: None,
    };
    Ok(setrlimit(Resource::Cpu, limit)?)
}

#[cfg(not(unix))]
fn confine(_memory: u64) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn allow_seconds(_seconds: u64) -> io::Result<()> {
    Ok(())
}
