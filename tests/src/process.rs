//! Child processes whose output can be read while they run, and which never outlive their test; and what is said to them byte for byte.

use anyhow::Result;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest time that a test waits for anything.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The program under test: the one in `MOSLIM_LAB_BIN`, else the one that cargo built beside the tests.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    let path = match std::env::var_os("MOSLIM_LAB_BIN") {
        Some(path) => PathBuf::from(path),
        None => {
            // A test is target/debug/deps/NAME, the program is target/debug/moslim-lab.
            let test = std::env::current_exe().expect("the path of this test");
            let folder = test.ancestors().nth(2).expect("the target folder of this test");
            folder.join(format!("moslim-lab{}", std::env::consts::EXE_SUFFIX))
        }
    };
    assert!(
        path.is_file(),
        "the program under test, {}, is missing; run the tests with `cargo lab test`, or build it with `cargo build -p \
         moslim-server`, or name it in MOSLIM_LAB_BIN",
        path.display()
    );
    path
}

/// A path as an argument.
///
/// # Panics
/// When it is not UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// What a process left.
#[derive(Debug)]
pub struct Output {
    /// None after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A child process. Its output goes to files, so that it never waits for a reader; it is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    folder: TempDir,
}

impl Process {
    /// Starts `program` with `input` as its standard input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &Path, args: &[&str], input: &str) -> Self {
        Self::start_in(program, args, input, &[])
    }

    /// Starts `program` with more in its environment.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_in(program: &Path, args: &[&str], input: &str, environment: &[(&str, &str)]) -> Self {
        Self::spawn(program, args, input, environment, None)
    }

    /// What it says goes to `errors`, else to a file.
    fn spawn(program: &Path, args: &[&str], input: &str, environment: &[(&str, &str)], errors: Option<Stdio>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("stdin"), input).expect("a file for the input");
        let file = File::create(path("stderr")).expect("a file for the errors");
        let child = Command::new(program)
            .args(args)
            .env_remove("MOSLIM_LAB_DATA")
            .env_remove("RUST_LOG")
            .envs(environment.iter().copied())
            .stdin(Stdio::from(File::open(path("stdin")).expect("the file of the input")))
            .stdout(Stdio::from(File::create(path("stdout")).expect("a file for the output")))
            .stderr(errors.unwrap_or(Stdio::from(file)))
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
        Self { child, folder }
    }

    /// Starts `moslim-lab`.
    pub fn lab(args: &[&str]) -> Self {
        Self::start(&binary(), args, "")
    }

    /// Starts `moslim-lab` with more in its environment.
    pub fn lab_in(args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_in(&binary(), args, "", environment)
    }

    /// Starts `moslim-lab` where nobody hears it: every write to standard error fails, as it does when a terminal has gone.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn lab_unheard(args: &[&str]) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        Self::spawn(&binary(), args, "", &[], Some(writer.into()))
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.path().join(name)).expect("the output of a child");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn running(&mut self) -> bool {
        self.child.try_wait().expect("the state of a child").is_none()
    }

    /// Ends it at once (SIGKILL), if it has not ended yet.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come within [`LIMIT`].
    pub fn wait(&mut self) -> Output {
        self.wait_at_most(LIMIT)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come in time.
    pub fn wait_at_most(&mut self, limit: Duration) -> Output {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the state of a child") {
                return Output { code: status.code(), stdout: self.stdout(), stderr: self.stderr() };
            }
            assert!(began.elapsed() < limit, "a process does not end; it said\n{}\n{}", self.stdout(), self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal, for example `TERM`; false when there is no such process (any more).
///
/// # Panics
/// When there is no shell.
pub fn signal(pid: u32, name: &str) -> bool {
    let command = format!("kill -{name} {pid}");
    let sent = Command::new("sh").arg("-c").arg(command).stderr(Stdio::null()).status();
    sent.expect("a shell").success()
}

/// Processes whose command line contains all of `words`.
///
/// # Panics
/// Where there is no `/proc`.
pub fn processes(words: &[&str]) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("the list of processes in /proc");
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            // A process may end while it is looked at.
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            words.iter().all(|word| line.contains(*word)).then_some(pid)
        })
        .collect()
}

/// Kills the processes whose command line contains all of `words`, and waits a moment for them to go.
pub fn kill_processes(words: &[&str]) {
    for _ in 0..100 {
        let left = processes(words);
        if left.is_empty() {
            return;
        }
        for pid in left {
            signal(pid, "KILL");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What a server on this machine answers to a request until it closes the connection.
///
/// # Errors
/// When it is not reached, or answers nothing.
pub fn raw(port: u16, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Waits until `probe` finds something.
///
/// # Panics
/// When it does not within [`LIMIT`].
pub async fn wait_until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(began.elapsed() < LIMIT, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
