//! What a study found, as a table: a row for every setting, a column for every figure.

use crate::parts::format;
use crate::source::at;
use crate::state::study::setting;
use crate::words::t;
use leptos::prelude::*;
use moslim_shared::study::{Spread, StudyGroup, StudyResults};

/// Figures of which more is better, whatever else is wanted. More KL, seconds or samples are a price, not a result.
const HIGHER: [&str; 12] = [
    "hypervolume",
    "expected utility",
    "hypervolume, best for each",
    "expected utility, best for each",
    "rank correlation",
    "hit rate",
    "all asked met",
    "held-out pairs",
    "win rate over SFT",
    "on topic",
    "fluent",
    "distinct answers",
];

/// The table, and files with the same figures. `id`: of the study.
pub fn comparison(id: &str, results: &StudyResults) -> impl IntoView + use<> {
    let heads = results.metrics.iter().map(|title| view! { <th scope="col">{title.clone()}</th> }).collect_view();
    let best = best(results);
    let rows = results.groups.iter().map(|group| row(group, &best)).collect_view();
    let mut files = vec![("results.csv", t("Figures of every run (CSV)")), ("results.json", t("Everything (JSON)"))];
    if has_front(results) {
        files.push(("front.svg", t("Trade-offs (SVG)")));
    }
    files.push(("figures.svg", t("Figures (SVG)")));
    let files = files
        .into_iter()
        .map(|(name, text)| {
            view! {
                <a class="button" download=format!("{id}-{name}") href=at(&format!("/api/v1/studies/{id}/files/{name}"))>{text}</a>
            }
        })
        .collect_view();
    view! {
        <article class="card">
            <div class="scroll" tabindex="0" role="group" aria-labelledby="results-title">
                <table class="values comparison" id="comparison">
                    <thead>
                        <tr>
                            <th scope="col">{setting(&results.axes)}</th>
                            {heads}
                        </tr>
                    </thead>
                    <tbody>{rows}</tbody>
                </table>
            </div>
            <p class="actions">{files}</p>
        </article>
    }
}

fn row(group: &StudyGroup, best: &[Option<f64>]) -> impl IntoView + use<> {
    let seeds: Vec<String> = group.seeds.iter().map(u64::to_string).collect();
    let noun = if seeds.len() == 1 { t("seed") } else { t("seeds") };
    let cells = group.metrics.iter().zip(best).map(|(spread, best)| cell(*spread, *best)).collect_view();
    view! {
        <tr>
            <th scope="row">{setting(&group.labels)}<small>{format!("{noun} {}", seeds.join(", "))}</small></th>
            {cells}
        </tr>
    }
}

fn cell(spread: Spread, best: Option<f64>) -> impl IntoView {
    let mean = significant(spread.mean);
    let bounded = spread.low < spread.high;
    let range = if bounded { format!("{}–{}", significant(spread.low), significant(spread.high)) } else { String::new() };
    let mean =
        if best == Some(spread.mean) { view! { <b>{mean}</b> }.into_any() } else { view! { <span>{mean}</span> }.into_any() };
    view! { <td>{mean}<small>{range}</small></td> }
}

/// Per figure the best mean, where more is better and there are settings to compare.
fn best(results: &StudyResults) -> Vec<Option<f64>> {
    let of = |(figure, title): (usize, &String)| {
        if results.groups.len() < 2 || !HIGHER.contains(&title.as_str()) {
            return None;
        }
        results.groups.iter().filter_map(|g| g.metrics.get(figure)).map(|s| s.mean).reduce(f64::max)
    };
    results.metrics.iter().enumerate().map(of).collect()
}

/// Whether there are points of at least two objectives.
pub fn has_front(results: &StudyResults) -> bool {
    results.objectives.len() > 1 && results.groups.iter().any(|g| !g.front.is_empty())
}

/// A number with three significant digits; a whole one below a thousand without decimals.
pub fn significant(value: f64) -> String {
    let size = value.abs();
    if size < 1000.0 && size.fract() == 0.0 || !size.is_finite() {
        return format::number(value, 0);
    }
    // 9.995 and what is above are rounded to 10.0, so they have the digits that 10 has.
    let exponent = (size * 10.0 / 9.995).log10().floor() as i32;
    if exponent < 3 {
        return format::number(value, (2 - exponent).clamp(0, 6) as usize);
    }
    let unit = 10f64.powi(exponent - 2);
    let sign = if value < 0.0 { "−" } else { "" };
    format!("{sign}{}", format::count(((size / unit).round() * unit) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::study::METRICS;

    #[test]
    fn three_digits_count() {
        let check = |value: f64, text: &str| assert_eq!(significant(value), text);
        check(0.0, "0");
        check(7.0, "7");
        check(0.123_456, "0.123");
        check(-0.042_16, "−0.0422");
        check(0.009_999, "0.0100");
        check(9.994, "9.99");
        check(9.996, "10.0");
        check(127.4, "127");
        check(999.6, "1\u{202f}000");
        check(56_320.0, "56\u{202f}300");
        check(-1_234.5, "−1\u{202f}230");
        check(f64::NAN, "–");
    }

    #[test]
    fn the_best_mean_of_a_figure_is_found_where_more_is_better() {
        let group = |means: [f64; 2]| StudyGroup {
            metrics: means.map(|mean| Spread { mean, low: mean, high: mean }).to_vec(),
            ..Default::default()
        };
        let results = |groups: Vec<StudyGroup>| StudyResults {
            metrics: vec!["KL, nats".into(), "hit rate".into()],
            groups,
            ..Default::default()
        };
        assert_eq!(best(&results(vec![group([1.0, 0.5]), group([2.0, 0.75])])), [None, Some(0.75)]);
        assert_eq!(best(&results(vec![group([1.0, 0.5])])), [None, None], "nothing to compare with");
    }

    #[test]
    fn figures_are_called_as_studies_call_them() {
        for title in HIGHER {
            assert!(METRICS.iter().any(|m| m.title == title), "{title}");
        }
    }
}
