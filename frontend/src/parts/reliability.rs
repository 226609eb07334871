//! A reliability diagram: how sure a model is of its classes, against how often it is right.

use crate::parts::format;
use crate::words::{said, t};
use leptos::prelude::*;
use moslim_charts::Ink;
use moslim_shared::metrics::ReliabilityBin;

/// Size of the drawing in its own units.
const SIZE: (f64, f64) = (258.0, 272.0);
/// The upper left corner of the square that the dots are in, and its side.
const LEFT: f64 = 30.0;
const TOP: f64 = 26.0;
const SIDE: f64 = 210.0;
/// Radius of a dot that stands for all rows; areas go with the rows.
const LARGEST: f64 = 13.0;
/// Smaller dots would not be seen.
const SMALLEST: f64 = 2.5;

/// A bin that has rows, and where it is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Dot {
    x: f64,
    y: f64,
    radius: f64,
    bin: ReliabilityBin,
}

/// Where a confidence and an accuracy are in the drawing.
fn place(confidence: f64, accuracy: f64) -> (f64, f64) {
    (LEFT + confidence.clamp(0.0, 1.0) * SIDE, TOP + (1.0 - accuracy.clamp(0.0, 1.0)) * SIDE)
}

/// A dot for every bin that has rows.
fn dots(bins: &[ReliabilityBin]) -> Vec<Dot> {
    let rows: usize = bins.iter().map(|bin| bin.n).sum();
    let dot = |bin: &ReliabilityBin| {
        let (x, y) = place(bin.confidence, bin.accuracy);
        let share = bin.n as f64 / rows as f64;
        Dot { x, y, radius: (LARGEST * share.sqrt()).max(SMALLEST), bin: *bin }
    };
    bins.iter().filter(|bin| bin.n > 0).map(dot).collect()
}

/// Mean confidence and accuracy over the rows of all bins; nothing without rows.
pub fn means(bins: &[ReliabilityBin]) -> Option<(f64, f64)> {
    let rows: usize = bins.iter().map(|bin| bin.n).sum();
    let mean = |of: fn(&ReliabilityBin) -> f64| bins.iter().map(|bin| bin.n as f64 * of(bin)).sum::<f64>() / rows as f64;
    (rows > 0).then(|| (mean(|bin| bin.confidence), mean(|bin| bin.accuracy)))
}

/// The bins as rows of a table: from which confidence to which, how many rows, mean confidence and accuracy. Empty ones are left
/// out.
pub fn bin_rows(bins: &[ReliabilityBin]) -> Vec<Vec<String>> {
    let edge = |n: usize| format::number(n as f64 / bins.len() as f64, 2);
    bins.iter()
        .enumerate()
        .filter(|(_, bin)| bin.n > 0)
        .map(|(n, bin)| {
            vec![
                said("{0} to {1}", &[&edge(n), &edge(n + 1)]),
                format::count(bin.n as u64),
                format::percent(bin.confidence),
                format::percent(bin.accuracy),
            ]
        })
        .collect()
}

/// The diagram of one objective, whose position is `index` and whose name `name`.
pub fn reliability(index: usize, name: &str, bins: &[ReliabilityBin]) -> impl IntoView + use<> {
    let (right, bottom) = (LEFT + SIDE, TOP + SIDE);
    let ticks = [0.0, 0.5, 1.0]
        .into_iter()
        .map(|value: f64| {
            let (x, y) = place(value, value);
            let text = value.to_string();
            view! {
                <line x1=x x2=x y1=TOP y2=bottom/>
                <line x1=LEFT x2=right y1=y y2=y/>
                <text class="middle" x=x y=bottom + 14.0>{text.clone()}</text>
                <text class="end" x=LEFT - 6.0 y=y + 4.0>{text}</text>
            }
        })
        .collect_view();
    let dots = dots(bins);
    let (sure, hits) = means(bins).unwrap_or_default();
    let told = said(
        "{0}: how sure the reward model is, against how often it is right, in {1} groups of rows. Mean confidence {2}, \
         accuracy {3}.",
        &[name, &dots.len().to_string(), &format::percent(sure), &format::percent(hits)],
    );
    let dots = dots
        .into_iter()
        .map(|dot| {
            let (_, even) = place(dot.bin.confidence, dot.bin.confidence);
            let (confidence, accuracy) = (format::percent(dot.bin.confidence), format::percent(dot.bin.accuracy));
            let rows = format::count(dot.bin.n as u64);
            let title = said("{0} rows: mean confidence {1}, accuracy {2}", &[&rows, &confidence, &accuracy]);
            view! {
                <line class="gap" x1=dot.x x2=dot.x y1=dot.y y2=even/>
                <circle cx=dot.x cy=dot.y r=dot.radius style:fill=Ink::Objective(index).css()>
                    <title>{title}</title>
                </circle>
            }
        })
        .collect_view();
    view! {
        <svg class="reliability" viewBox=format!("0 0 {} {}", SIZE.0, SIZE.1) role="img" aria-label=told>
            {ticks}
            <line class="even" x1=LEFT x2=right y1=bottom y2=TOP/>
            {dots}
            <text x="2" y="12">{t("↑ how often right (accuracy)")}</text>
            <text class="end" x=right y=bottom + 31.0>{t("how sure (mean confidence) →")}</text>
        </svg>
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bins() -> Vec<ReliabilityBin> {
        let bin = |n, confidence, accuracy| ReliabilityBin { n, confidence, accuracy };
        vec![bin(0, 0.0, 0.0), bin(1, 0.375, 1.0), bin(0, 0.0, 0.0), bin(3, 0.875, 0.25)]
    }

    #[test]
    fn a_dot_stands_right_of_its_confidence_above_its_accuracy_and_its_area_goes_with_its_rows() {
        let all: Vec<_> = dots(&bins()).into_iter().map(|d| (d.x, d.y, d.bin.n)).collect();
        // 0.375 and 0.875 of 210 behind 30; from the top, none and three quarters of 210 behind 26.
        assert_eq!(all, [(108.75, 26.0, 1), (213.75, 183.5, 3)]);
        assert_eq!(dots(&bins())[0].radius, LARGEST / 2.0, "a quarter of the rows");
        let few = [ReliabilityBin { n: 1, ..Default::default() }, ReliabilityBin { n: 9999, ..Default::default() }];
        assert_eq!(dots(&few)[0].radius, SMALLEST);
        assert!(dots(&[ReliabilityBin::default()]).is_empty());
    }

    #[test]
    fn means_are_over_rows_and_not_over_bins() {
        assert_eq!(means(&bins()), Some((0.75, 0.4375)));
        assert_eq!(means(&[ReliabilityBin::default()]), None);
    }

    #[test]
    fn rows_of_the_table_keep_the_edges_of_their_bins() {
        assert_eq!(bin_rows(&bins()), [["0.25 to 0.50", "1", "38 %", "100 %"], ["0.75 to 1.00", "3", "88 %", "25 %"]]);
    }
}
