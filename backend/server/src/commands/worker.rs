//! `moslim-lab worker`: the child process in which a server trains a run. The other side is `crate::worker`.

use crate::cli::WorkerArgs;
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::json::{self, JsonError};
use anyhow::anyhow;
use moslim_engine::run::{Job, RunError, train};
use moslim_shared::config::RunConfig;
use moslim_shared::event::{EventBody, Outcome};
use std::any::Any;
use std::io::{BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time to reach a checkpoint when the server has gone. After it the process ends in any case: no orphan is left.
const ORPHAN_TIME: Duration = Duration::from_secs(60);

/// What the server wants, as far as this process knows.
#[derive(Default)]
struct Wish {
    stop: AtomicBool,
    /// Whether it was `cancel`; if not, the input ended.
    cancel: AtomicBool,
}

/// Trains, writing one event per line to standard output, the end included.
///
/// # Errors
/// As the exit code of the process; the end was written as an event by then.
pub fn run(args: &WorkerArgs) -> Result<(), Failure> {
    let wish = Arc::new(Wish::default());
    let listener = wish.clone();
    std::thread::spawn(move || listen(&listener));

    let data = DataFolder::resolve(Some(args.data.clone()));
    let result = read_config(args).and_then(|config| {
        let _lock = data.lock_run(&args.run, ORPHAN_TIME + Duration::from_secs(5)).map_err(|e| RunError::Failed(anyhow!(e)))?;
        let job = Job { run: args.run.to_string(), config, lab: data.root().to_path_buf() };
        let mut sink = |body: EventBody| {
            // A server that no longer reads has gone; then this run ends at a checkpoint like at the end of input.
            if write_event(&body).is_err() {
                wish.stop.store(true, Ordering::SeqCst);
            }
        };
        catch_unwind(AssertUnwindSafe(|| train(&job, &wish.stop, &mut sink))).unwrap_or_else(|panic| Err(panicked(&*panic)))
    });
    let cancelled = wish.cancel.load(Ordering::SeqCst);
    let (outcome, message, answer) = match result {
        Ok(_) => (Outcome::Finished, String::new(), Ok(())),
        Err(RunError::Cancelled) if cancelled => {
            let message = "cancelled".to_string();
            (Outcome::Cancelled, message.clone(), Err(Failure::Failed(message)))
        }
        Err(RunError::Cancelled) => {
            let message =
                "the server stopped while this run was training; resume it to go on from its last checkpoint".to_string();
            (Outcome::Interrupted, message.clone(), Err(Failure::Failed(message)))
        }
        Err(RunError::BadInput(message)) => (Outcome::Failed, message.clone(), Err(Failure::BadInput(message))),
        Err(RunError::Failed(error)) => {
            let message = format!("{error:#}");
            (Outcome::Failed, message.clone(), Err(Failure::Failed(message)))
        }
    };
    // If nobody reads it, the server has gone and will call this run interrupted when it is back.
    let _ = write_event(&EventBody::Ended { outcome, message });
    answer
}

fn read_config(args: &WorkerArgs) -> Result<RunConfig, RunError> {
    let path = args.config.display();
    let bytes = std::fs::read(&args.config).map_err(|e| RunError::BadInput(format!("config: {path} cannot be read: {e}")))?;
    json::read(&bytes).map_err(|error| match error {
        JsonError::Syntax(message) => RunError::BadInput(format!("config: {path}: {message}")),
        JsonError::Field(problem) => RunError::BadInput(format!("{}: {}", problem.field, problem.message)),
    })
}

/// Obeys standard input until it ends.
fn listen(wish: &Wish) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line.trim() == "cancel" {
            wish.cancel.store(true, Ordering::SeqCst);
            wish.stop.store(true, Ordering::SeqCst);
        }
    }
    wish.stop.store(true, Ordering::SeqCst);
    std::thread::sleep(ORPHAN_TIME);
    std::process::exit(i32::from(crate::failure::RUN_FAILED));
}

fn write_event(body: &EventBody) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(body)?;
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    // One write for the whole line: the server never sees half of one from a process that still lives.
    output.write_all(&line)?;
    output.flush()
}

fn panicked(panic: &(dyn Any + Send)) -> RunError {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    RunError::Failed(anyhow!("internal error: {}", text.unwrap_or("no message")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_keep_their_message() {
        let panics: [Box<dyn Any + Send>; 2] = [Box::new("gone"), Box::new(String::from("gone"))];
        for panic in panics {
            let RunError::Failed(error) = panicked(&*panic) else { panic!("a failure was expected") };
            assert_eq!(error.to_string(), "internal error: gone");
        }
    }
}
