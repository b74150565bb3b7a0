//! Child processes that have a mutant.

use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Tells a child which mutant it has.
pub(super) const VARIABLE: &str = "QUORUMLOG_MUTANT";
/// Output of one child that is kept, of each of its two streams; the rest is thrown away.
const OUTPUT_BYTES_MAX: usize = 16 << 20;

/// How a child ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// None if it took too long and was ended.
    pub(super) status: Option<ExitStatus>,
    pub(super) out: String,
    pub(super) err: String,
}

impl Ended {
    /// The exit code; none if a signal ended it.
    pub(super) fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// The last line that it wrote to standard error, which tells of a crash.
    pub(super) fn last_words(&self) -> &str {
        self.err.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("")
    }
}

/// Runs a command with a mutant, for at most `limit`.
///
/// # Errors
/// It cannot be started.
pub(super) fn run(
    mut command: Command,
    mutant: Option<&str>,
    limit: Duration,
) -> Result<Ended, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error| format!("cannot run {program}: {error}");
    command.env_remove(VARIABLE);
    if let Some(mutant) = mutant {
        command.env(VARIABLE, mutant);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (sender, read) = mpsc::channel();
    let readers = sender.clone();
    std::thread::spawn(move || drop(sender.send((false, collect(out)))));
    std::thread::spawn(move || drop(readers.send((true, collect(err)))));
    let deadline = Instant::now() + limit;
    let (mut texts, mut hung) = ([String::new(), String::new()], false);
    // Both streams end when the child does.
    for _ in 0..2 {
        match read.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((is_err, text)) => texts[usize::from(is_err)] = text,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                hung = true;
                child.kill().map_err(failed)?;
                break;
            }
        }
    }
    let status = child.wait().map_err(failed)?;
    let [out, err] = texts;
    Ok(Ended { status: (!hung).then_some(status), out, err })
}

fn collect(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        // What cannot be read counts as not said. The rest is read too, so that the child can go on.
        let _ = stream.by_ref().take(OUTPUT_BYTES_MAX as u64).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_child_has_its_mutant_and_tells_how_it_ended() {
        let script = "echo has $QUORUMLOG_MUTANT; echo one >&2; echo two >&2; exit 3";
        let ended = run(shell(script), Some("M"), Duration::from_secs(60)).expect("a shell");
        assert_eq!((ended.code(), ended.out.trim()), (Some(3), "has M"));
        assert_eq!(ended.last_words(), "two");
        let ended = run(shell(script), None, Duration::from_secs(60)).expect("a shell");
        assert_eq!(ended.out.trim(), "has");
    }

    #[test]
    fn a_child_that_takes_too_long_is_ended() {
        let ended =
            run(shell("exec sleep 600"), None, Duration::from_millis(100)).expect("a shell");
        assert!(ended.status.is_none());
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let command = Command::new("/there/is/no/such/program");
        assert!(run(command, None, Duration::from_secs(60)).is_err());
    }
}
