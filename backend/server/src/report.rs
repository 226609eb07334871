//! A run's summary as a table for people.

use crate::progress::duration;
use moslim_engine::run::trial::Estimate;
use moslim_shared::summary::{ControlSummary, FrontPoint, FrontReport, RunSummary};
use std::fmt::Write;

/// The summary in a few readable lines.
pub fn table(summary: &RunSummary) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut text, summary);
    text
}

fn write(out: &mut String, s: &RunSummary) -> std::fmt::Result {
    writeln!(out, "Run {} (preset {}, seed {}) on {}: {}", s.run, s.preset, s.seed, s.device, duration(s.seconds.total))?;
    writeln!(out, "\nReward model on the test split")?;
    writeln!(out, "  {:<16} {:>8} {:>9} {:>9} {:>7} {:>7}", "objective", "rows", "accuracy", "majority", "QWK", "ECE")?;
    for h in &s.reward_model.heads {
        let (objective, n) = (&h.objective, h.n);
        writeln!(out, "  {objective:<16} {n:>8} {:>9.3} {:>9.3} {:>7.3} {:>7.3}", h.accuracy, h.majority, h.qwk, h.ece)?;
    }
    control(out, &s.control)?;
    if let Some(judge) = s.judge() {
        writeln!(out, "  {judge}")?;
    }
    writeln!(out, "\nPolicy optimisation")?;
    let p = &s.policy;
    writeln!(out, "  reward {:+.3} -> {:+.3}, KL {:.2} nats per answer", p.reward_first, p.reward_last, p.kl)?;
    writeln!(out, "  {} answers and {} tokens sampled", p.samples, p.tokens)?;
    front(out, s)?;
    let c = &s.compute;
    let passes = c.policy.passes() / 1e6;
    writeln!(out, "\nCost of {} after SFT and reward model", s.method.title())?;
    writeln!(
        out,
        "  {passes:.1} million token passes in {:.0} s; {} models trained, {} kept; at most {} MiB",
        c.policy_seconds, c.models_trained, c.models_kept, c.peak_memory_mib
    )
}

fn front(out: &mut String, s: &RunSummary) -> std::fmt::Result {
    if s.front.points.is_empty() {
        return Ok(());
    }
    let f = &s.front;
    writeln!(
        out,
        "\nTrade-offs (utility: 0 for the worst class, 1 for the best), as graded by the {}",
        s.control.grader.title()
    )?;
    points(out, f, &f.points)?;
    let [low, high] = f.interval;
    writeln!(out, "  hypervolume {:.4} ({low:.4} to {high:.4}) above {:?}", f.hypervolume, f.reference)?;
    if let Some(utility) = f.expected_utility {
        writeln!(out, "  expected utility {utility:.4} (mean over the trade-offs of the weighted utility)")?;
    }
    if let Some(menu) = &f.menu {
        writeln!(
            out,
            "  the widest set of {} offers, each tried on {} training questions with the reward model",
            menu.offers, menu.questions
        )?;
    }
    if let Some(chosen) = &f.chosen {
        writeln!(out, "\nThe best offer for each trade-off, by the reward model on training questions")?;
        points(out, f, &chosen.points)?;
        writeln!(out, "  hypervolume {:.4}\n  expected utility {:.4}", chosen.hypervolume, chosen.expected_utility)?;
    }
    Ok(())
}

fn points(out: &mut String, f: &FrontReport, points: &[FrontPoint]) -> std::fmt::Result {
    writeln!(out, "  {:<32} {} fluent", "weights", f.objectives.iter().map(|o| format!("{o:>14}")).collect::<String>())?;
    for p in points {
        let weights = p.weights.iter().map(|w| format!("{w:.2}")).collect::<Vec<_>>().join(" ");
        let utility: String = p.utility.iter().map(|u| format!("{u:>14.3}")).collect();
        let asked = p.asked.as_ref().map_or(String::new(), |a| {
            let classes = a.0.iter().map(|c| c.map_or("-".into(), |c| c.to_string())).collect::<Vec<String>>();
            format!("  asked for {}", classes.join(" "))
        });
        writeln!(out, "  {weights:<32} {utility} {:>6.2}{asked}", p.fluency)?;
    }
    Ok(())
}

fn control(out: &mut String, c: &ControlSummary) -> std::fmt::Result {
    writeln!(out, "\nControl, as graded by the {} (hit rate: share of answers in the class asked for)", c.grader.title())?;
    writeln!(
        out,
        "  {:<16} {:>8} {:>8} {:>8} {:>9} {:>9} {:>12}",
        "objective", "policy", "SFT", "chance", "Spearman", "SFT", "words"
    )?;
    for head in &c.policy.heads {
        let sft = c.sft.heads.iter().find(|h| h.objective == head.objective);
        let (hit, rank) = sft.map_or((f64::NAN, f64::NAN), |h| (h.hit_rate, h.spearman));
        writeln!(
            out,
            "  {:<16} {:>8.3} {hit:>8.3} {:>8.3} {:>9.3} {rank:>9.3} {:>12}",
            head.objective,
            head.hit_rate,
            head.chance,
            head.spearman,
            head.words_told().unwrap_or_else(|| "-".into())
        )?;
    }
    let rows: [(&str, f64, f64); 4] = [
        ("all at once", c.policy.joint_hit_rate, c.sft.joint_hit_rate),
        ("trained pairs", c.policy.trained_hit_rate, c.sft.trained_hit_rate),
        ("held-out pairs", c.policy.held_out_hit_rate, c.sft.held_out_hit_rate),
        ("fluent", c.policy.fluency, c.sft.fluency),
    ];
    for (name, policy, sft) in rows {
        writeln!(out, "  {name:<16} {policy:>8.3} {sft:>8.3}")?;
    }
    if let (Some(policy), Some(sft)) = (c.policy.likelihood, c.sft.likelihood) {
        writeln!(out, "  {:<16} {policy:>8.2} {sft:>8.2}   nats a token, under the model before", "log-likelihood")?;
    }
    if !c.policy.wordings.is_empty() {
        let ways = c.policy.wordings.iter().map(|w| format!("{} {:.3}", w.wording.title(), w.hit_rate));
        writeln!(out, "  several tags, hit rate by how they are asked: {}", ways.collect::<Vec<_>>().join(", "))?;
    }
    Ok(())
}

/// What a run would take, as text.
pub fn estimate(estimate: &Estimate) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{:<24} {:>12} {:>10} {:>12}", "stage", "measured", "share", "will take");
    for s in &estimate.stages {
        let share = if s.share >= 1.0 { "all".into() } else { format!("{:.1} %", 100.0 * s.share) };
        let _ = writeln!(out, "{:<24} {:>12} {share:>10} {:>12}", s.stage.title(), duration(s.measured), duration(s.seconds));
    }
    let _ = writeln!(out, "{:<24} {:>12} {:>10} {:>12}", "together", "", "", duration(estimate.seconds));
    if estimate.peak_memory_mib > 0 {
        let free = estimate.free_memory_mib.map_or(String::new(), |free| format!("; {free} MiB were free"));
        let _ = writeln!(out, "memory: {} MiB at most{free}", estimate.peak_memory_mib);
    }
    if let Some(memory) = &estimate.memory {
        let _ = writeln!(out, "by its sizes: {} MiB at most, {}", memory.mib, memory.stage.title());
        for (part, mib) in memory.parts.iter().filter(|(_, mib)| *mib > 0) {
            let _ = writeln!(out, "  {part:<44} {mib:>8} MiB");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::summary::{ControlHead, ControlReport, Grader, RewardHeadReport, RewardModelReport};

    #[test]
    fn the_table_shows_what_counts() {
        let head = |hit_rate| ControlHead { objective: "honesty".into(), hit_rate, chance: 0.25, ..Default::default() };
        let report = |hit_rate| ControlReport { heads: vec![head(hit_rate)], ..Default::default() };
        let summary = RunSummary {
            run: "a".into(),
            reward_model: RewardModelReport {
                heads: vec![RewardHeadReport { objective: "honesty".into(), accuracy: 0.875, qwk: 0.5, ..Default::default() }],
                ..Default::default()
            },
            control: ControlSummary { grader: Grader::Gold, policy: report(0.75), sft: report(0.3) },
            ..Default::default()
        };
        let text = table(&summary);
        for part in ["Run a", "honesty", "0.875", "0.500", "gold", "0.750", "0.300", "0.250"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        // A reward model that grades says how well it does, and not where rules grade.
        let mut judged = RunSummary { held_out_reward_model: Some(summary.reward_model.clone()), ..summary };
        assert!(!table(&judged).contains("No rules"));
        judged.control.grader = Grader::HeldOutRewardModel;
        assert!(table(&judged).contains("is honesty 0.50."), "{}", table(&judged));
    }
}
