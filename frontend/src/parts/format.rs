//! Numbers, durations and states as people read them.

use crate::words::{said, t};
use moslim_charts::INKS;
use moslim_shared::config::{KlPlacement, PolicyConfig};
use moslim_shared::event::RunStatus;

/// A number with `digits` decimals and a real minus sign; `–` when it is not a number.
pub fn number(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let text = format!("{:.digits$}", value.abs());
    let zero = text.chars().all(|c| c == '0' || c == '.');
    if value < 0.0 && !zero { format!("−{text}") } else { text }
}

/// The same with a sign in any case.
pub fn signed(value: f64, digits: usize) -> String {
    let text = number(value, digits);
    if value.is_finite() && !text.starts_with('−') { format!("+{text}") } else { text }
}

/// A colour for style sheets: so many per cent of the hue of the objective at a position, over the page.
pub fn tint(objective: usize, percent: f64) -> String {
    format!("color-mix(in srgb, var(--obj-{}) {percent:.1}%, var(--surface))", objective % INKS)
}

/// A share in per cent, without decimals.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.0} %", share * 100.0) } else { "–".into() }
}

/// A count with thin groups of three digits.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(c);
    }
    text
}

/// A duration: `0.4 s`, `12 s`, `3 min 05 s`, `1 h 02 min`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "–".into();
    }
    if seconds < 10.0 {
        return said("{0} s", &[&format!("{seconds:.1}")]);
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => said("{0} s", &[&whole.to_string()]),
        60..3600 => said("{0} min {1} s", &[&(whole / 60).to_string(), &format!("{:02}", whole % 60)]),
        _ => said("{0} h {1} min", &[&(whole / 3600).to_string(), &format!("{:02}", whole % 3600 / 60)]),
    }
}

/// How long ago `then` was (both in milliseconds).
pub fn ago(then: u64, now: f64) -> String {
    let seconds = ((now - then as f64) / 1000.0).max(0.0) as u64;
    match seconds {
        0..60 => t("just now").into(),
        60..3600 => said("{0} min ago", &[&(seconds / 60).to_string()]),
        3600..86_400 => said("{0} h ago", &[&(seconds / 3600).to_string()]),
        _ => said("{0} d ago", &[&(seconds / 86_400).to_string()]),
    }
}

/// Name of a status, for style classes and for tests; [`status_told`] is for people.
pub fn status(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Queued => "queued",
        RunStatus::Running => "running",
        RunStatus::Finished => "finished",
        RunStatus::Cancelled => "cancelled",
        RunStatus::Failed => "failed",
        RunStatus::Interrupted => "interrupted",
        RunStatus::Paused => "paused",
    }
}

/// A status in a word, in the reader's language.
pub fn status_told(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Queued => t("queued"),
        RunStatus::Running => t("running"),
        RunStatus::Finished => t("finished"),
        RunStatus::Cancelled => t("cancelled"),
        RunStatus::Failed => t("failed"),
        RunStatus::Interrupted => t("interrupted"),
        RunStatus::Paused => t("paused"),
    }
}

/// Where the KL penalty is, in a sentence.
pub fn kl_penalty(policy: &PolicyConfig) -> &'static str {
    match policy.kl_placement() {
        KlPlacement::Reward => t("Its KL penalty is subtracted from the reward."),
        KlPlacement::Loss => t("Its KL penalty is part of the loss."),
        KlPlacement::Implicit => t("It has no KL penalty: the loss itself holds the policy near what it started from."),
        KlPlacement::None => t("It has no KL penalty."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_real_signs() {
        assert_eq!(number(-1.26, 1), "−1.3");
        assert_eq!(number(-0.001, 2), "0.00");
        assert_eq!(number(f64::NAN, 2), "–");
        assert_eq!(signed(0.5, 2), "+0.50");
        assert_eq!(signed(-0.5, 2), "−0.50");
        assert_eq!(percent(0.256), "26 %");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn durations_grow_coarser() {
        assert_eq!(duration(0.44), "0.4 s");
        assert_eq!(duration(59.4), "59 s");
        assert_eq!(duration(185.0), "3 min 05 s");
        assert_eq!(duration(3725.0), "1 h 02 min");
        assert_eq!(duration(f64::INFINITY), "–");
        assert_eq!(ago(0, 7_200_000.0), "2 h ago");
    }
}
