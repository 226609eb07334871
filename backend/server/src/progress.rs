//! Progress of a run on standard error: a bar on a terminal, else a plain line now and then.

use crate::failure::printable;
use crate::log;
use indicatif::{ProgressBar, ProgressStyle};
use moslim_shared::event::{EventBody, Stage};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two plain lines of a stage.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows where a run is.
pub struct Progress {
    terminal: bool,
    current: Option<Current>,
}

/// The stage that runs.
struct Current {
    stage: Stage,
    /// The step it began at; more than 0 after a resumption.
    from: usize,
    began: Instant,
    /// When the last plain line was written.
    told: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Decides by what standard error is.
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), current: None }
    }

    /// Shows what an event says, if it is about progress.
    pub fn observe(&mut self, body: &EventBody) {
        match body {
            EventBody::Started { device, resumed, .. } => {
                let verb = if *resumed { "resumes" } else { "starts" };
                self.say(&format!("The run {verb} on {} ({}): {}", device.device, device.name, device.reason));
            }
            EventBody::StageBegan { stage, from, total, .. } => self.begin(*stage, *from, *total),
            EventBody::Loss { step, total, loss, .. } => self.step(*step, *total, &format!("loss {loss:.4}")),
            EventBody::Policy { total, step, .. } => {
                let on_target: Vec<String> = step.on_target.iter().map(|p| format!("{p:.2}")).collect();
                let said = format!("reward {:+.3}, KL {:.2}, on target {}", step.reward, step.kl, on_target.join(" "));
                self.step(step.step, *total, &said);
            }
            EventBody::Answering { done, total } | EventBody::Evaluating { done, total } => self.step(*done, *total, ""),
            EventBody::StageEnded { stage, seconds, cached, .. } => {
                self.clear();
                let from_cache = if *cached { ", from the cache" } else { "" };
                self.say(&format!("{}: done in {}{from_cache}", stage.title(), duration(*seconds)));
            }
            EventBody::Note { text } => self.say(text),
            _ => {}
        }
    }

    /// Removes the bar, so that what follows starts on a clean line.
    pub fn clear(&mut self) {
        if let Some(Current { bar: Some(bar), .. }) = self.current.take() {
            bar.finish_and_clear();
        }
    }

    fn say(&self, text: &str) {
        match &self.current {
            Some(Current { bar: Some(bar), .. }) => bar.println(printable(text)),
            _ => log::say(text),
        }
    }

    fn begin(&mut self, stage: Stage, from: usize, total: usize) {
        self.clear();
        let bar = self.terminal.then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}, {eta} left");
            let bar = ProgressBar::new(total as u64).with_prefix(stage.title());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.set_position(from as u64);
            // What was done before this process is no measure of its speed.
            bar.reset_eta();
            bar
        });
        self.current = Some(Current { stage, from, began: Instant::now(), told: None, bar });
    }

    fn step(&mut self, step: usize, total: usize, remark: &str) {
        let Some(current) = &mut self.current else { return };
        if let Some(bar) = &current.bar {
            bar.set_length(total as u64);
            bar.set_position(step as u64);
            bar.set_message(remark.to_string());
            return;
        }
        if current.told.is_some_and(|told| told.elapsed() < LINE_EVERY) {
            return;
        }
        current.told = Some(Instant::now());
        let mut line = format!("{}: {step}/{total}", current.stage.title());
        if !remark.is_empty() {
            line.push_str(&format!(", {remark}"));
        }
        if let Some(left) = remaining(current.began.elapsed(), step.saturating_sub(current.from), total.saturating_sub(step)) {
            line.push_str(&format!(", about {} left", duration(left)));
        }
        log::say(&line);
    }
}

/// Seconds for `left` steps at the speed of the `done` ones; unknown before the first.
fn remaining(elapsed: Duration, done: usize, left: usize) -> Option<f64> {
    (done > 0).then(|| elapsed.as_secs_f64() / done as f64 * left as f64)
}

/// Seconds for people.
pub fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{:.1} s", seconds.max(0.0));
    }
    // A float beyond the range becomes the largest number, which is as good an answer.
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_readable() {
        for (seconds, text) in [
            (0.3, "0.3 s"),
            (59.2, "59 s"),
            (61.0, "1 min 01 s"),
            (3_599.9, "1 h 00 min"),
            (7_500.0, "2 h 05 min"),
            (-1.0, "0.0 s"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_resumed_stage_is_timed_by_its_own_steps() {
        assert_eq!(remaining(Duration::from_secs(10), 0, 50), None);
        assert_eq!(remaining(Duration::from_secs(10), 20, 50), Some(25.0));
    }
}
