//! What is read off a plot.

use super::place_name;
use crate::parts::format;
use crate::words::{self, t};
use moslim_charts::view::nearest;
use moslim_charts::{Over, Plot, Shape};

/// Every place on the x axis that has data, in ascending order.
pub fn places(plot: &Plot) -> Vec<f64> {
    let mut all: Vec<f64> = match plot {
        Plot::Lines(p) => p.series.iter().flat_map(|s| s.points.iter().map(|p| p.0)).collect(),
        Plot::Bands(p) => p.rows.iter().map(|r| r.0).collect(),
    };
    all.sort_by(f64::total_cmp);
    all.dedup();
    all
}

/// Names of the lines or classes.
pub fn names(plot: &Plot) -> Vec<String> {
    match plot {
        Plot::Lines(p) => p.series.iter().map(|s| s.label.clone()).collect(),
        Plot::Bands(p) => p.classes.clone(),
    }
}

/// The values of line or class `n` at `x`, or at the end; the nearest point counts.
pub fn value(plot: &Plot, n: usize, x: Option<f64>) -> Option<f64> {
    match plot {
        Plot::Lines(p) => {
            let points = &p.series.get(n)?.points;
            let point = match x {
                Some(x) if p.over == Over::Steps => nearest(points, x),
                _ => points.last().copied(),
            };
            point.map(|p| p.1)
        }
        Plot::Bands(p) => {
            let row = match x {
                Some(x) => p.rows.iter().min_by(|a, b| (a.0 - x).abs().total_cmp(&(b.0 - x).abs())),
                None => p.rows.last(),
            };
            row?.1.get(n).copied()
        }
    }
}

/// The unit of y in the reader's language.
pub fn unit(plot: &Plot) -> &'static str {
    match plot {
        Plot::Lines(p) => t(p.unit),
        Plot::Bands(p) => match p.shape {
            Shape::Stacked => t("share of answers"),
            Shape::Heat => t("class"),
            Shape::Ridges => t("step"),
        },
    }
}

/// Title of the x axis of the drawing in the reader's language.
pub fn across(plot: &Plot) -> &'static str {
    match plot {
        Plot::Bands(p) if p.shape == Shape::Ridges => t("class"),
        _ => x_title(plot),
    }
}

/// What the places of the data are, in the reader's language.
pub fn x_title(plot: &Plot) -> &'static str {
    match plot {
        Plot::Lines(p) if p.over == Over::Kl => t("KL, nats per answer"),
        _ => t("step"),
    }
}

/// A value for people.
pub fn said(plot: &Plot, value: f64) -> String {
    match plot {
        Plot::Lines(p) if !p.percent => format::number(value, if value.abs() < 10.0 { 3 } else { 1 }),
        _ => format::percent(value),
    }
}

/// The chart in one sentence.
pub fn sentence(title: &str, plot: &Plot) -> String {
    let Some(&last) = places(plot).last() else { return words::said("{0} No data yet.", &[title]) };
    let values: Vec<String> = names(plot)
        .into_iter()
        .enumerate()
        .filter_map(|(n, name)| Some(format!("{name} {}", said(plot, value(plot, n, None)?))))
        .collect();
    words::said("{0} At {1}: {2}.", &[title, &place_name(plot, last), &values.join(", ")])
}

/// Every row of data: a place, and the value of every line or class there, `None` where there is none.
pub fn rows(plot: &Plot) -> Vec<(f64, Vec<Option<f64>>)> {
    match plot {
        Plot::Bands(p) => p.rows.iter().map(|(x, shares)| (*x, shares.iter().copied().map(Some).collect())).collect(),
        // KL comes back to where it was: the rows stay in their order.
        Plot::Lines(p) if p.over == Over::Kl => {
            let longest = p.series.iter().max_by_key(|s| s.points.len()).map_or(&[][..], |s| &s.points);
            let of = |n: usize| p.series.iter().map(|s| s.points.get(n).map(|p| p.1)).collect();
            longest.iter().enumerate().map(|(n, point)| (point.0, of(n))).collect()
        }
        Plot::Lines(p) => {
            let mut next = vec![0; p.series.len()];
            let mut row = |x: f64| {
                let cells = p.series.iter().zip(&mut next).map(|(s, next)| {
                    let point = s.points.get(*next).filter(|p| p.0 == x)?;
                    *next += 1;
                    Some(point.1)
                });
                cells.collect()
            };
            places(plot).into_iter().map(|x| (x, row(x))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_charts::{BandPlot, Ink, LinePlot, Series};

    fn lines(points: [&[(f64, f64)]; 2]) -> Plot {
        let series =
            |n: usize| Series { label: ["a", "b"][n].into(), ink: Ink::Objective(n), bold: false, points: points[n].to_vec() };
        Plot::Lines(LinePlot { series: vec![series(0), series(1)], ..Default::default() })
    }

    #[test]
    fn rows_hold_every_value_once_and_gaps_where_there_is_none() {
        let plot = lines([&[(1.0, 0.5), (3.0, 0.7)], &[(2.0, 9.0), (3.0, 8.0)]]);
        let expected = vec![(1.0, vec![Some(0.5), None]), (2.0, vec![None, Some(9.0)]), (3.0, vec![Some(0.7), Some(8.0)])];
        assert_eq!(rows(&plot), expected);
        let bands = |shape: Shape| {
            let classes = vec!["no".into(), "yes".into()];
            Plot::Bands(BandPlot { objective: 0, classes, rows: vec![(4.0, vec![0.25, 0.75])], shape })
        };
        assert_eq!(rows(&bands(Shape::Stacked)), [(4.0, vec![Some(0.25), Some(0.75)])]);
        // Axes are named by the drawing, places by the data.
        let titles = [Shape::Stacked, Shape::Heat, Shape::Ridges].map(|shape| {
            let plot = bands(shape);
            [unit(&plot), across(&plot), x_title(&plot)]
        });
        assert_eq!(titles, [["share of answers", "step", "step"], ["class", "step", "step"], ["step", "class", "step"]]);
    }

    #[test]
    fn values_are_those_of_the_nearest_place_or_of_the_end() {
        let plot = lines([&[(1.0, 0.5), (4.0, 0.7)], &[]]);
        assert_eq!([value(&plot, 0, Some(2.0)), value(&plot, 0, None), value(&plot, 1, None)], [Some(0.5), Some(0.7), None]);
        assert_eq!(sentence("Is it?", &plot), "Is it? At step 4: a 0.700.");
        assert_eq!(sentence("Is it?", &lines([&[], &[]])), "Is it? No data yet.");
    }
}
