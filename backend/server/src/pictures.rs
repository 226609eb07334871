//! Pictures as SVG, for reports: of a study the trade-off of every group and its figures with their range, of a run its curves.

use moslim_charts::bars::{self, BarPlot};
use moslim_charts::front::{self, FrontPlot};
use moslim_charts::{LinePlot, Palette, View, line};
use moslim_shared::study::{METRICS, StudyGroup, StudyResults};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Figures that are drawn, by their id in [`METRICS`].
const DRAWN: [&str; 6] = ["hypervolume", "spearman", "hit_rate", "joint_hit_rate", "fluency", "mega_passes"];
/// Width of the plot of trade-offs, beside which the legend is, and height of its title.
const FRONT: (i32, i32) = (560, 40);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// `front.svg` where there are fronts of at least two objectives, and `figures.svg`: name and content.
///
/// # Errors
/// When a picture cannot be drawn.
pub fn of_study(results: &StudyResults) -> anyhow::Result<Vec<(String, String)>> {
    let palette = Palette::paper();
    let mut out = Vec::new();
    if results.objectives.len() >= 2 && results.groups.iter().any(|g| !g.front.is_empty()) {
        out.push(("front.svg".to_string(), svg((820, 560), |area| draw_front(area, results, &palette))?));
    }
    let plot = bar_plot(results);
    out.push(("figures.svg".to_string(), svg((1180, plot.height()), |area| bars::draw(area, &plot, &palette))?));
    Ok(out)
}

/// A chart of lines, 560 by 260.
///
/// # Errors
/// When it cannot be drawn.
pub fn lines(plot: &LinePlot) -> anyhow::Result<String> {
    svg((560, 260), |area| line::draw(area, plot, &View::default(), &Palette::paper()).map(drop))
}

fn svg(size: (u32, u32), draw: impl FnOnce(&Area) -> Drawn) -> anyhow::Result<String> {
    let mut out = String::new();
    {
        let area = SVGBackend::with_string(&mut out, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    Ok(out)
}

/// Name of a group.
fn name(group: &StudyGroup) -> String {
    group.labels.join(" · ")
}

fn draw_front(area: &Area, results: &StudyResults, palette: &Palette) -> Drawn {
    let title = TextStyle::from((FontFamily::SansSerif, 16.0)).color(&palette.text);
    area.draw(&Text::new("Trade-offs, mean of seeds (0 worst class, 1 best)", (16, 14), title))?;
    let (_, rest) = area.split_vertically(FRONT.1);
    let (plot, legend) = rest.split_horizontally(FRONT.0);
    front::draw(&plot, &front_plot(results), palette)?;
    let names: Vec<String> = results.groups.iter().map(name).collect();
    front::legend(&legend, &names, palette)
}

/// The first objective across, and the mean of the others up.
fn front_plot(results: &StudyResults) -> FrontPlot {
    let at = |values: &[f64]| {
        let (first, others) = values.split_first()?;
        Some((*first, others.iter().sum::<f64>() / others.len().max(1) as f64))
    };
    FrontPlot {
        x: results.objectives[0].clone(),
        y: format!("mean of {}", results.objectives[1..].join(", ")),
        floor: at(&results.reference).unwrap_or_default(),
        groups: results.groups.iter().map(|g| g.front.iter().filter_map(|p| at(p)).collect()).collect(),
    }
}

fn bar_plot(results: &StudyResults) -> BarPlot {
    let figures = DRAWN.iter().filter_map(|id| {
        let m = METRICS.iter().position(|m| m.id == *id)?;
        let spreads = results.groups.iter().map(|g| (g.metrics[m].mean, g.metrics[m].low, g.metrics[m].high)).collect();
        Some((METRICS[m].title.to_string(), spreads))
    });
    BarPlot {
        title: format!("{}: mean of the seeds, and their range", results.name),
        groups: results.groups.iter().map(name).collect(),
        figures: figures.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::study::Spread;

    #[test]
    fn pictures_show_every_group() {
        let group = |label: &str, front: Vec<Vec<f64>>| StudyGroup {
            labels: vec![label.into()],
            seeds: vec![1],
            metrics: vec![Spread { mean: 0.5, low: 0.25, high: 0.75 }; METRICS.len()],
            front,
        };
        let results = StudyResults {
            name: "methods".into(),
            objectives: vec!["helpfulness".into(), "honesty".into()],
            groups: vec![group("<first> & one", vec![vec![0.1, 0.9], vec![0.8, 0.2], vec![0.05, 0.1]]), group("second", vec![])],
            ..Default::default()
        };
        let pictures = of_study(&results).unwrap();
        assert_eq!(pictures.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["front.svg", "figures.svg"]);
        for (_, svg) in &pictures {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(svg.contains("second") && svg.contains("&lt;first&gt; &amp; one"), "labels are there, and escaped");
        }
        assert!(pictures[1].1.contains("0.500"));
    }

    #[test]
    fn the_mean_of_the_others_goes_upwards() {
        let results = StudyResults {
            objectives: ["a", "b", "c"].map(String::from).to_vec(),
            reference: vec![0.0, 0.25, 0.75],
            groups: vec![StudyGroup { front: vec![vec![0.5, 0.25, 0.75]], ..Default::default() }],
            ..Default::default()
        };
        let plot = front_plot(&results);
        assert_eq!((plot.x.as_str(), plot.y.as_str(), plot.floor), ("a", "mean of b, c", (0.0, 0.5)));
        assert_eq!(plot.groups, [[(0.5, 0.5)]]);
    }
}
