//! A run as one HTML file that needs nothing else: no server, no network, no script. For a thesis, a mail, an archive.

use crate::curves::{Curves, Scalar};
use crate::follow::Follower;
use crate::html::text;
use crate::id::RunId;
use crate::pictures::lines;
use anyhow::Context;
use moslim_charts::{Ink, LinePlot, SHARE, Series};
use moslim_engine::keep::journal;
use moslim_shared::event::{Event, EventBody, RunInfo, RunStatus, Sample, Stage};
use moslim_shared::objective::Objective;
use moslim_shared::summary::{ControlReport, RunSummary};
use std::fmt::Write;

/// Answers that are shown: the last ones that policy optimisation told of.
const SHOWN: usize = 12;
/// What is drawn: title, stage, beginning of the figures' names, unit.
const CHARTS: [(&str, Stage, &[&str], &str); 8] = [
    ("Supervised fine-tuning: loss", Stage::Sft, &["loss"], "nats"),
    ("Reward model: loss", Stage::RewardModel, &["loss"], "nats"),
    ("Reward model: agreement with the labels", Stage::RewardModel, &["quadratic kappa/"], "kappa"),
    ("Policy: score, and reward after the KL penalty", Stage::Policy, &["score", "reward"], "deviations"),
    ("Policy: probability of the class asked for", Stage::Policy, &["on target/"], SHARE),
    ("Policy: KL from the reference policy", Stage::Policy, &["kl"], "nats"),
    ("Policy: entropy", Stage::Policy, &["entropy"], "nats"),
    ("Policy: length of answers", Stage::Policy, &["length"], "tokens"),
];
const STYLE: &str = "
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-top: 1px solid; padding-top: 1rem; }
.grid { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: start; }
table { border-collapse: collapse; } caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { padding: .2rem .6rem; text-align: right; font-variant-numeric: tabular-nums; } th { font-weight: 400; }
th:first-child, td:first-child { text-align: left; }
.matrix td { min-width: 3.2rem; color: #10202e; } .matrix td.asked { outline: 2px solid currentcolor; outline-offset: -2px; }
figure { margin: 0; } figure svg { max-width: 100%; height: auto; background: #fff; } figcaption { font-weight: 600; }
blockquote { margin: .25rem 0 .25rem 0; padding-left: .8rem; border-left: 3px solid; white-space: pre-wrap; overflow-wrap: anywhere; }
article { padding: .6rem 0; } pre { overflow-x: auto; } small { opacity: .8; } figure small { display: block; }
";

/// Takes in a journal, and says it as a page.
#[derive(Default)]
struct Page {
    curves: Curves,
    objectives: Vec<Objective>,
    samples: Vec<(usize, Sample)>,
    /// Events that cannot be read.
    damaged: usize,
}

impl Page {
    fn hear(&mut self, event: &Event) {
        self.curves.hear(event);
        self.damaged += usize::from(journal::is_damaged(&event.body));
        match &event.body {
            EventBody::Started { objectives, .. } => self.objectives.clone_from(objectives),
            EventBody::Samples { step, samples, .. } => {
                self.samples.extend(samples.iter().map(|s| (*step, s.clone())));
                let left = self.samples.len().saturating_sub(SHOWN);
                self.samples.drain(..left);
            }
            _ => {}
        }
    }

    /// The page. `config`: the run's configuration as TOML.
    ///
    /// # Errors
    /// When a chart cannot be drawn.
    fn html(self, run: &RunInfo, config: &str) -> anyhow::Result<String> {
        let Self { curves, objectives, samples, damaged } = self;
        let mut out = String::new();
        let title = text(&run.title());
        // Writing to a string does not fail.
        let _ = write!(
            out,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>{title} · MOSLIM Lab</title><style>{STYLE}</style></head><body><h1>{title}</h1>"
        );
        let _ = write!(out, "<p>{}</p>", text(&stands(run)));
        if !run.about.note.is_empty() {
            let _ = write!(out, "<blockquote>{}</blockquote>", text(&run.about.note));
        }
        if damaged > 0 {
            let said =
                format!("{damaged} events in its journal, {}, are damaged: what they said is left out below.", journal::FILE);
            let _ = write!(out, "<p><b>{said}</b></p>");
        }
        if let Some(summary) = &run.summary {
            control(&mut out, summary, &objectives);
            reward_model(&mut out, summary);
        }
        charts(&mut out, &curves.scalars())?;
        if !samples.is_empty() {
            out.push_str("<h2>The last answers of training</h2>");
            samples.iter().for_each(|(step, sample)| answer(&mut out, *step, sample, &objectives));
        }
        let _ = write!(out, "<h2>Configuration</h2><pre>{}</pre>", text(config));
        let version = env!("CARGO_PKG_VERSION");
        let _ = write!(out, "<p><small>Run {}, made by MOSLIM Lab {version}.</small></p></body></html>", text(&run.id));
        Ok(out)
    }
}

/// A run of the lab's as a page; blocks on the disk. `None` where there is none.
///
/// # Errors
/// When its journal cannot be read, or a chart cannot be drawn.
pub fn page(follower: &Follower, id: &RunId) -> anyhow::Result<Option<String>> {
    let Some(run) = follower.run(id) else { return Ok(None) };
    let mut page = Page::default();
    follower.each_event(id, |event| page.hear(event))?;
    page.html(&run, &toml::to_string(&run.config).context("writing the configuration")?).map(Some)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// How it stands, in words.
fn stands(run: &RunInfo) -> String {
    let Some(s) = &run.summary else {
        let how = match run.status {
            RunStatus::Running => "It was still training when this page was made.",
            RunStatus::Queued => "It was waiting for its turn when this page was made.",
            RunStatus::Paused => "It was paused when this page was made.",
            _ => "It has not finished.",
        };
        return format!("{how} {}", run.message);
    };
    let mean = |c: &ControlReport| c.heads.iter().map(|h| h.hit_rate).sum::<f64>() / c.heads.len().max(1) as f64;
    format!(
        "{} of the classes asked for were met, and {} before policy optimisation, as graded by the {}; seed {}, {}, {:.0} s.",
        percent(mean(&s.control.policy)),
        percent(mean(&s.control.sft)),
        s.control.grader.title(),
        s.seed,
        s.device,
        s.seconds.total
    )
}

fn control(out: &mut String, summary: &RunSummary, objectives: &[Objective]) {
    let _ = write!(
        out,
        "<h2>Asked and achieved</h2><p>A row is a class that was asked for; its cells are where the answers ended.</p>"
    );
    if let Some(judge) = summary.judge() {
        let _ = write!(out, "<p>{}</p>", text(&judge));
    }
    let graded = &summary.control;
    for (when, report) in [("After", &graded.policy), ("Before", &graded.sft)] {
        let _ = write!(out, "<h3>{when} policy optimisation</h3><div class=\"grid\">");
        for head in &report.heads {
            let classes = objectives.iter().find(|o| o.id == head.objective).map_or(&[][..], |o| &o.classes[..]);
            let name = |class: usize| text(classes.get(class).map_or("", |c| c.as_str()));
            let _ = write!(out, "<table class=\"matrix\"><caption>{}</caption><tr><th>", text(&head.objective));
            for class in 0..head.matrix.len() {
                let _ = write!(out, "<th>{class}");
            }
            for (asked, row) in head.matrix.iter().enumerate() {
                let _ = write!(out, "<tr><th>{asked} {}", name(asked));
                for (got, share) in row.iter().enumerate() {
                    let own = if got == asked { " class=\"asked\"" } else { "" };
                    let shade = 88 - (share.clamp(0.0, 1.0) * 40.0) as u32;
                    let _ = write!(out, "<td{own} style=\"background:hsl(205 60% {shade}%)\">{}", percent(*share));
                }
            }
            let _ = write!(out, "</table>");
        }
        out.push_str("</div>");
    }
    let _ = write!(out, "<h3>Figures</h3><table><tr><th>figure<th>after<th>before");
    let (after, before) = (&graded.policy, &graded.sft);
    for (name, after, before) in [
        ("all of several wishes met", after.joint_hit_rate, before.joint_hit_rate),
        ("fluent answers", after.fluency, before.fluency),
        ("distinct answers", after.diversity.unique, before.diversity.unique),
        ("answers without a word", after.empty, before.empty),
    ] {
        let _ = write!(out, "<tr><td>{name}<td>{}<td>{}", percent(after), percent(before));
    }
    let _ = write!(out, "<tr><td>nearer to the wish than before, ties half<td>{}<td>", percent(graded.policy.win_rate));
    if let (Some(after), Some(before)) = (after.likelihood, before.likelihood) {
        let _ = write!(out, "<tr><td>log-likelihood of a token under the model before, nats<td>{after:.2}<td>{before:.2}");
    }
    for (head, before) in graded.policy.heads.iter().zip(&graded.sft.heads) {
        let name = text(&head.objective);
        let _ = write!(out, "<tr><td>rank correlation, {name}<td>{:.2}<td>{:.2}", head.spearman, before.spearman);
        if let (Some(after), Some(before)) = (head.words_told(), before.words_told()) {
            let _ = write!(out, "<tr><td>words from the lowest to the highest class, {name}<td>{after}<td>{before}");
        }
    }
    out.push_str("</table>");
}

fn reward_model(out: &mut String, summary: &RunSummary) {
    let head = "<h2>Reward model on the test split</h2><table><tr><th>objective<th>rows<th>accuracy<th>most frequent class\
                <th>quadratic kappa<th>calibration error";
    out.push_str(head);
    for h in &summary.reward_model.heads {
        let (accuracy, majority) = (percent(h.accuracy), percent(h.majority));
        let _ =
            write!(out, "<tr><td>{}<td>{}<td>{accuracy}<td>{majority}<td>{:.2}<td>{:.3}", text(&h.objective), h.n, h.qwk, h.ece);
    }
    out.push_str("</table>");
}

fn charts(out: &mut String, scalars: &[Scalar]) -> anyhow::Result<()> {
    let mut drawn = String::new();
    for (title, stage, names, unit) in CHARTS {
        let mut series: Vec<Series> = Vec::new();
        let own =
            |s: &&Scalar| s.stage == stage && names.iter().any(|n| s.name == *n || (n.ends_with('/') && s.name.starts_with(n)));
        for scalar in scalars.iter().filter(own) {
            let name = scalar.name.rsplit('/').next().unwrap_or_default();
            let label = scalar.part.as_ref().map_or(name.to_string(), |part| format!("{part}: {name}"));
            let n = series.iter().position(|s| s.label == label).unwrap_or_else(|| {
                series.push(Series { label, ink: Ink::Objective(series.len()), bold: false, points: Vec::new() });
                series.len() - 1
            });
            series[n].points.push((scalar.step as f64, scalar.value));
        }
        if series.iter().any(|s| s.points.len() > 1) {
            let labels: Vec<String> = series.iter().map(|s| s.label.clone()).collect();
            let picture = lines(&LinePlot::over_steps(series, unit))?;
            let legend = text(&labels.join(", "));
            let _ = write!(
                drawn,
                "<figure><figcaption>{title}</figcaption>{picture}<small>{legend} ({unit}, by step)</small></figure>"
            );
        }
    }
    if !drawn.is_empty() {
        let _ = write!(out, "<h2>Curves</h2><div class=\"grid\">{drawn}</div>");
    }
    Ok(())
}

fn answer(out: &mut String, step: usize, sample: &Sample, objectives: &[Objective]) {
    let _ = write!(out, "<article><b>{}</b> <small>step {step}</small>", text(&sample.question));
    let _ = write!(out, "<blockquote>{}</blockquote><small>", text(&sample.answer));
    let asked: Vec<String> = sample
        .preference
        .asked()
        .filter_map(|(i, class)| {
            let objective = objectives.get(i)?;
            let p = sample.distributions.get(i)?.get(class)?;
            let (name, class) = (&objective.name, objective.classes.get(class)?);
            Some(format!("{name}: \u{201c}{class}\u{201d} was asked for, {} sure that it is", percent(*p)))
        })
        .collect();
    let said = if asked.is_empty() { "nothing was asked for".to_string() } else { asked.join("; ") };
    let _ = write!(out, "{}; score {:+.2}, KL {:.2}</small></article>", text(&said), sample.score, sample.kl);
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::RunConfig;

    #[test]
    fn a_page_needs_nothing_else_and_runs_nothing() {
        let mut run = RunInfo::new("r1", &RunConfig { name: "<script>alert(1)</script>".into(), ..Default::default() }, 0);
        run.about.note = "a < b & c".into();
        let mut page = Page::default();
        for step in 1..4 {
            let body = EventBody::Loss { stage: Stage::Sft, part: None, step, total: 3, loss: 3.0 - step as f64, rate: 1.0 };
            page.hear(&Event { seq: step as u64, time: 0, body });
        }
        let html = page.html(&run, "seed = 1").unwrap();
        assert!(html.contains("&lt;script&gt;alert(1)") && !html.contains("<script"), "{html}");
        assert!(html.contains("a &lt; b &amp; c") && html.contains("<svg") && html.contains("seed = 1"));
        assert!(html.contains("It has not finished."));
        assert!(!html.contains("are damaged"), "{html}");
        for elsewhere in ["src=", "href=", "url(", "@import"] {
            assert!(!html.contains(elsewhere), "{elsewhere}");
        }
    }
    #[test]
    fn a_page_says_that_events_are_damaged() {
        let run = RunInfo::new("r1", &RunConfig::default(), 0);
        let mut page = Page::default();
        page.hear(&journal::read_line(1, b"{\"time\":1,\"bod"));
        page.hear(&journal::read_line(2, br#"{"time":5,"body":{"note":{"text":"well"}}}"#));
        let html = page.html(&run, "").unwrap();
        assert!(html.contains("1 events in its journal, events.jsonl, are damaged"), "{html}");
    }
}
