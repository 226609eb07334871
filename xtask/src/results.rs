//! `cargo lab results`: docs/results.md, docs/defects.md and the results in the README, made of templates and of the studies' files, and the
//! tables of docs/scale.md, so that no figure in them can be stale. With `--check`, nothing is written, and what differs is named.
//!
//! A template is Markdown with directives in double braces; STUDY is a file `docs/studies/STUDY.results.json`:
//!
//!     {{table STUDY | METRIC METRIC ..}}                   every setting, with means and intervals
//!     {{table STUDY | METRIC .. | LABEL; LABEL ..}}        these settings alone
//!     {{mean STUDY | LABEL | METRIC}}                      one figure, with its interval
//!     {{parts STUDY | FIGURE FIGURE ..}}                   figures on the parts of the test split
//!     {{part STUDY | LABEL | PART | FIGURE}}               one of them
//!     {{gap STUDY | LABEL | LABEL | METRIC}}               by how much the means of two settings differ
//!     {{least STUDY | METRIC METRIC}}                      the least that the first exceeds the second by, of all runs
//!     {{versus STUDY | LABEL | LABEL; LABEL .. | METRIC ..}}  who is ahead, and where intervals are apart
//!     {{tuned STUDY | fronts}}                             which settings were taken for a table
//!     {{each STUDY | LABEL | METRIC}}                      one figure of every run of a setting, by seed
//!     {{range STUDY | METRIC | LABEL; LABEL ..}}           the least and the most that a run of these settings has
//!     {{set STUDY | FIELD}}                                what a study's plan sets
//!     {{set STUDY | LABEL | FIELD}}                        and one of its settings
//!     {{tries STUDY}}                                      how many settings were tried for each, and for how many
//!     {{runs STUDY}}                                       the number of runs, and their seeds
//!     {{when STUDY}} .. {{end}}                            the text between them, where every run of the study is done

use super::root;
use crate::marked::between;
use crate::scale;
use anyhow::{Context, Result, bail};
use moslim_shared::study::{METRICS, Spread, StudyConfig, StudyGroup, StudyResults, StudyRow, TAKEN, Table, best};
use moslim_shared::summary::{ControlFigures, FrontPart};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;

/// Template, file, and whether the text stands between the file's markers or is all of it.
const PAGES: [(&str, &str, bool); 3] = [
    ("docs/results.in.md", "docs/results.md", false),
    ("docs/defects.in.md", "docs/defects.md", false),
    ("docs/results-in-short.in.md", "README.md", true),
];
/// Where the text begins and ends in a file with more than it.
const MARKERS: [&str; 2] = ["<!-- results: begin -->", "<!-- results: end -->"];

/// Writes the pages, or names those that are stale.
pub fn results(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for id in studies(&root().join("docs/studies"))? {
        stale.extend(put_together(&root().join("docs/studies"), &id, check)?);
    }
    for (template, page, within) in PAGES {
        let text = std::fs::read_to_string(root().join(template)).with_context(|| format!("reading {template}"))?;
        let mut made = render(&text, &root().join("docs/studies")).with_context(|| format!("in {template}"))?;
        let file = root().join(page);
        let old = std::fs::read_to_string(&file).unwrap_or_default();
        if within {
            made = between(&old, MARKERS, &made).with_context(|| format!("{page} has no {} .. {}", MARKERS[0], MARKERS[1]))?;
        }
        if old != made {
            if check {
                stale.push(page.to_string());
            } else {
                std::fs::write(&file, made).with_context(|| format!("writing {page}"))?;
                println!("wrote {page}");
            }
        }
    }
    stale.extend(scale::page(check)?);
    let tuning = root().join("docs/studies/optimisers-tuning.results.json");
    if tuning.exists() {
        let found: StudyResults = read(&tuning)?;
        for (optimizer, label) in TAKEN {
            let best = best(optimizer.title(), &found, Table::SpokenControl);
            let best = best.as_deref().and_then(|b| b.split_once(" · ")).map(|(_, setting)| setting);
            if best.is_some_and(|best| best != label) {
                bail!(
                    "TAKEN in shared/src/study/tries.rs says \"{label}\" of {}, and the tuning took {best:?}",
                    optimizer.title()
                );
            }
        }
    }
    if stale.is_empty() { Ok(()) } else { bail!("{} is stale: cargo lab results writes it", stale.join(" and ")) }
}

/// Studies with results in `folder`.
fn studies(folder: &Path) -> Result<Vec<String>> {
    let files = std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let names = files.flatten().filter_map(|file| file.file_name().into_string().ok());
    let mut ids: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".results.json")?.to_string())).collect();
    ids.sort();
    Ok(ids)
}

/// Differences of figures below this are of the last digits, in which machines differ.
const SAME: f64 = 1e-9;

/// Puts the runs of a study together as today's code does, where its file has that otherwise. Returns the file's name if it is stale.
fn put_together(folder: &Path, id: &str, check: bool) -> Result<Option<String>> {
    let name = format!("{id}.results.json");
    let (config, found): (StudyConfig, StudyResults) = (read(&folder.join(format!("{id}.json")))?, read(&folder.join(&name))?);
    let today = StudyResults::of(&config, found.runs.clone(), (found.objectives.clone(), found.reference.clone()));
    let near = |a: f64, b: f64| a == b || (a - b).abs() < SAME || a.is_nan() && b.is_nan();
    let alike = |(a, b): (&Spread, &Spread)| near(a.mean, b.mean) && near(a.low, b.low) && near(a.high, b.high);
    let same = |(a, b): (&StudyGroup, &StudyGroup)| {
        a.labels == b.labels && a.metrics.len() == b.metrics.len() && a.metrics.iter().zip(&b.metrics).all(alike)
    };
    if found.groups.len() == today.groups.len() && found.groups.iter().zip(&today.groups).all(same) {
        return Ok(None);
    }
    if check {
        return Ok(Some(name));
    }
    std::fs::write(folder.join(&name), serde_json::to_vec_pretty(&today)?).with_context(|| format!("writing {name}"))?;
    println!("wrote docs/studies/{name}");
    Ok(None)
}

/// A template without the parts that wait for a study.
fn available(template: &str, folder: &Path) -> Result<String> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{when ") {
        let (id, body) = after.split_once("}}").context("a directive does not end")?;
        let (body, tail) = body.split_once("{{end}}").with_context(|| format!("{{{{when {id}}}}} has no {{{{end}}}}"))?;
        out += before;
        if is_complete(folder, id.trim())? {
            out += body;
        }
        rest = tail;
    }
    Ok(out + rest)
}

/// Whether every run of a study's plan has its results in `folder`.
fn is_complete(folder: &Path, id: &str) -> Result<bool> {
    let [plan, results] = [format!("{id}.json"), format!("{id}.results.json")].map(|name| folder.join(name));
    if !results.exists() {
        return Ok(false);
    }
    let (config, found): (StudyConfig, StudyResults) = (read(&plan)?, read(&results)?);
    Ok(found.is_complete(&config))
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let of = || format!("reading {}; moslim-lab compare --to docs/studies writes it", file.display());
    serde_json::from_slice(&std::fs::read(file).with_context(of)?).with_context(of)
}

/// A template with its directives replaced by figures of the studies in `folder`.
fn render(template: &str, folder: &Path) -> Result<String> {
    let mut studies: BTreeMap<String, StudyResults> = BTreeMap::new();
    let mut out = String::new();
    let template = available(template, folder)?;
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once("{{") {
        out += before;
        let (directive, tail) = after.split_once("}}").context("a directive does not end")?;
        let directive = directive.split_whitespace().collect::<Vec<_>>().join(" ");
        out += &figure(&directive, folder, &mut studies).with_context(|| format!("in {{{{{directive}}}}}"))?;
        rest = tail;
    }
    out += rest;
    Ok(out)
}

fn figure(directive: &str, folder: &Path, studies: &mut BTreeMap<String, StudyResults>) -> Result<String> {
    let mut parts = directive.split('|').map(str::trim);
    let (what, id) = parts.next().and_then(|p| p.split_once(' ')).context("a directive is NAME STUDY | ..")?;
    if !studies.contains_key(id) {
        let file = folder.join(format!("{id}.results.json"));
        studies.insert(id.into(), read(&file)?);
    }
    let study = &studies[id];
    let rest: Vec<&str> = parts.collect();
    match (what, rest.as_slice()) {
        ("table", [metrics]) => table(study, metrics, &study.groups.iter().collect::<Vec<_>>()),
        ("table", [metrics, labels]) => table(study, metrics, &groups(study, labels)?),
        ("mean", [label, id]) => Ok(cell(group(study, label)?.metrics[metric(id)?])),
        ("parts", [figures]) => by_part(study, figures),
        ("part", [label, part, id]) => {
            let labels = &group(study, label)?.labels;
            let own = study.runs.iter().filter(|r| r.labels == *labels);
            mean_on_part(own, part, part_figure(id)?).with_context(|| format!("{id} was not measured on a part called {part}"))
        }
        ("gap", [one, other, id]) => {
            let mean = |label: &str| Ok::<f64, anyhow::Error>(group(study, label)?.metrics[metric(id)?].mean);
            Ok(short((mean(one)? - mean(other)?).abs()))
        }
        ("least", [pair]) => {
            let (first, second) = pair.split_once(' ').context("least takes two metrics")?;
            let (first, second) = (metric(first)?, metric(second)?);
            let least = study.runs.iter().map(|r| r.metrics[first] - r.metrics[second]).min_by(f64::total_cmp);
            least.map(short).context("the study has no runs")
        }
        ("versus", [label, others, metrics]) => versus(study, label, others, metrics),
        ("each", [label, id]) => each(study, label, id),
        ("range", [id, labels]) => range(study, id, labels),
        ("set", [field]) => planned(folder, id, None, field),
        ("set", [label, field]) => planned(folder, id, Some(*label), field),
        ("tries", []) => tries(study),
        ("tuned", ["fronts"]) => tuned(study, Table::Fronts),
        ("tuned", ["control"]) => tuned(study, Table::Control),
        ("tuned", ["spoken control"]) => tuned(study, Table::SpokenControl),
        ("runs", []) => {
            let mut seeds: Vec<u64> = study.runs.iter().map(|r| r.seed).collect();
            seeds.sort_unstable();
            seeds.dedup();
            let seeds = seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            let those = if seeds.contains(',') { "seeds" } else { "seed" };
            Ok(format!("{} runs, {those} {seeds}", study.runs.len()))
        }
        _ => bail!("unknown directive"),
    }
}

/// Position of a metric.
fn metric(id: &str) -> Result<usize> {
    let known = || METRICS.iter().map(|m| m.id).collect::<Vec<_>>().join(", ");
    METRICS.iter().position(|m| m.id == id).with_context(|| format!("no metric is called {id}; known are {}", known()))
}

fn name(group: &StudyGroup) -> String {
    group.labels.join(" · ")
}

fn group<'a>(study: &'a StudyResults, label: &str) -> Result<&'a StudyGroup> {
    let known = || study.groups.iter().map(name).collect::<Vec<_>>().join("; ");
    study.groups.iter().find(|g| name(g) == label).with_context(|| format!("no setting is called {label}; known are {}", known()))
}

fn groups<'a>(study: &'a StudyResults, labels: &str) -> Result<Vec<&'a StudyGroup>> {
    labels.split(';').map(|label| group(study, label.trim())).collect()
}

/// Three digits, and the interval where there is one.
fn cell(spread: Spread) -> String {
    let [mean, low, high] = [spread.mean, spread.low, spread.high].map(short);
    if low == high { mean } else { format!("{mean} ({low}–{high})") }
}

fn short(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract() == 0.0 && value.abs() >= 1.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else if value.abs() >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

fn rows(heads: &[String], body: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut out = line(heads) + &format!("|{}\n", "---|".repeat(heads.len()));
    body.for_each(|cells| out += &line(&cells));
    out.trim_end().to_string()
}

fn table(study: &StudyResults, metrics: &str, groups: &[&StudyGroup]) -> Result<String> {
    let metrics = metrics.split(' ').map(metric).collect::<Result<Vec<usize>>>()?;
    let heads: Vec<String> =
        [study.axes.join(" · ")].into_iter().chain(metrics.iter().map(|&m| METRICS[m].title.to_string())).collect();
    let body = groups.iter().map(|g| [name(g)].into_iter().chain(metrics.iter().map(|&m| cell(g.metrics[m]))).collect());
    Ok(rows(&heads, body))
}

/// A figure of a run on a part, by its id: of control, or of the front.
fn part_figure(id: &str) -> Result<PartFigure> {
    Ok(match id {
        "spearman" => PartFigure::Control(|f| f.spearman),
        "hit_rate" => PartFigure::Control(|f| f.hit_rate),
        "joint_hit_rate" => PartFigure::Control(|f| f.joint_hit_rate),
        "held_out_hit_rate" => PartFigure::Control(|f| f.held_out_hit_rate),
        "win_rate" => PartFigure::Control(|f| f.win_rate),
        "fluency" => PartFigure::Control(|f| f.fluency),
        "unique" => PartFigure::Control(|f| f.unique),
        "on_topic" => PartFigure::Control(|f| f.on_topic),
        "hypervolume" => PartFigure::Front(|f| f.hypervolume),
        "expected_utility" => PartFigure::Front(|f| f.expected_utility),
        _ => bail!("no figure of a part is called {id}"),
    })
}

/// Where a figure of a part stands.
#[derive(Clone, Copy)]
enum PartFigure {
    Control(fn(&ControlFigures) -> f64),
    Front(fn(&FrontPart) -> f64),
}

impl PartFigure {
    /// The figure of `run` on `part`, where it was measured.
    fn of(self, run: &StudyRow, part: &str) -> Option<f64> {
        match self {
            Self::Control(figure) => run.parts.iter().find(|p| p.part == part).map(|p| figure(&p.figures)),
            Self::Front(figure) => run.front_parts.iter().find(|p| p.part == part).map(figure),
        }
    }
}

/// The mean over `runs` of a figure on a part; `None` where none has it.
fn mean_on_part<'a>(runs: impl Iterator<Item = &'a StudyRow>, part: &str, figure: PartFigure) -> Option<String> {
    let values: Vec<f64> = runs.filter_map(|r| figure.of(r, part)).collect();
    (!values.is_empty()).then(|| short(values.iter().sum::<f64>() / values.len() as f64))
}

/// A row for every setting, a column for every figure on every part: means over the seeds.
fn by_part(study: &StudyResults, figures: &str) -> Result<String> {
    let figures = figures.split(' ').map(|id| Ok((id, part_figure(id)?))).collect::<Result<Vec<_>>>()?;
    let parts: Vec<String> = study.runs.first().map(|r| r.parts.iter().map(|p| p.part.clone()).collect()).unwrap_or_default();
    let columns = || figures.iter().flat_map(|(id, of)| parts.iter().map(move |part| (*id, *of, part)));
    let title = |id: &str| METRICS.iter().find(|m| m.id == id).map_or(id.to_string(), |m| m.title.to_string());
    let heads: Vec<String> =
        [study.axes.join(" · ")].into_iter().chain(columns().map(|(id, _, part)| format!("{}, {part}", title(id)))).collect();
    let body = study.groups.iter().map(|g| {
        let of = |part: &String, figure: PartFigure| {
            mean_on_part(study.runs.iter().filter(|r| r.labels == g.labels), part, figure).unwrap_or_default()
        };
        [name(g)].into_iter().chain(columns().map(|(_, figure, part)| of(part, figure))).collect()
    });
    Ok(rows(&heads, body))
}

/// For every other setting and figure: whether `label` is ahead of it, and whether the intervals are apart.
fn versus(study: &StudyResults, label: &str, others: &str, metrics: &str) -> Result<String> {
    let (own, others) = (group(study, label)?, groups(study, others)?);
    let metrics = metrics.split(' ').map(metric).collect::<Result<Vec<usize>>>()?;
    let heads: Vec<String> =
        [format!("{label} against")].into_iter().chain(metrics.iter().map(|&m| METRICS[m].title.to_string())).collect();
    let body = others.iter().map(|other| {
        let verdict = |&m: &usize| {
            let (a, b) = (&own.metrics[m], &other.metrics[m]);
            let side = if a.mean >= b.mean { "ahead" } else { "behind" };
            format!("{} {side}{}", short((a.mean - b.mean).abs()), if a.apart(b) { "" } else { ", intervals overlap" })
        };
        [name(other)].into_iter().chain(metrics.iter().map(verdict)).collect()
    });
    Ok(rows(&heads, body))
}

/// A figure of every run of a setting, in the order of their seeds.
fn each(study: &StudyResults, label: &str, id: &str) -> Result<String> {
    let (labels, m) = (&group(study, label)?.labels, metric(id)?);
    let mut own: Vec<&StudyRow> = study.runs.iter().filter(|r| r.labels == *labels).collect();
    own.sort_by_key(|r| r.seed);
    Ok(own.iter().map(|r| short(r.metrics[m])).collect::<Vec<_>>().join(", "))
}

/// The least and the most that a run of some settings has, with two digits.
fn range(study: &StudyResults, id: &str, labels: &str) -> Result<String> {
    let (m, groups) = (metric(id)?, groups(study, labels)?);
    let mut own: Vec<f64> =
        study.runs.iter().filter(|r| groups.iter().any(|g| g.labels == r.labels)).map(|r| r.metrics[m]).collect();
    own.sort_by(f64::total_cmp);
    let (least, most) = own.first().zip(own.last()).context("these settings have no runs")?;
    Ok(format!("{least:.2} to {most:.2}"))
}

/// What the plan of a study has in a field: that of a setting, or what all have in common.
fn planned(folder: &Path, id: &str, label: Option<&str>, field: &str) -> Result<String> {
    let plan: StudyConfig = read(&folder.join(format!("{id}.json")))?;
    let mut settings = plan.axes.iter().flat_map(|axis| &axis.variants);
    let own = match label {
        Some(label) => {
            settings.find(|v| v.label == label).with_context(|| format!("no setting is called {label}"))?.set.get(field)
        }
        None => None,
    };
    let base = serde_json::to_value(&plan.base)?;
    let common = || field.split('.').try_fold(&base, |value, name| value.get(name));
    let value = own.or_else(common).with_context(|| format!("{field} names no field"))?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_string))
}

/// How many settings were tried for each of those that were tuned.
fn tries(study: &StudyResults) -> Result<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for title in study.groups.iter().filter_map(|g| g.labels.first()?.split(" · ").next()) {
        *counts.entry(title).or_default() += 1;
    }
    let (least, most) = counts.values().min().zip(counts.values().max()).context("nothing was tuned")?;
    let count = if least == most { least.to_string() } else { format!("{least} to {most}") };
    Ok(format!("{count} tries for each of {}", counts.len()))
}

/// The settings with the best figures of a table, for everyone who was tuned.
fn tuned(study: &StudyResults, of: Table) -> Result<String> {
    let mut titles: Vec<&str> = study.groups.iter().filter_map(|g| g.labels.first()?.split(" · ").next()).collect();
    titles.dedup();
    let figures = of.figures().iter().map(|id| metric(id)).collect::<Result<Vec<usize>>>()?;
    let mut heads = vec![String::new(), "taken".to_string()];
    heads.extend(figures.iter().map(|&m| METRICS[m].title.to_string()));
    heads.push("as shipped".into());
    let body = titles.iter().filter_map(|title| {
        let label = best(title, study, of)?;
        let score = |g: &StudyGroup| figures.iter().map(|&m| short(g.metrics[m].mean)).collect::<Vec<_>>();
        let taken = study.groups.iter().find(|g| g.labels[0] == label)?;
        let first = study.groups.iter().find(|g| g.labels[0].starts_with(&format!("{title} · ")))?;
        let setting = label.split(" · ").skip(1).collect::<Vec<_>>().join(" · ");
        Some([title.to_string(), setting].into_iter().chain(score(taken)).chain([score(first).join(", ")]).collect())
    });
    Ok(rows(&heads, body))
}

#[cfg(test)]
mod tests;
