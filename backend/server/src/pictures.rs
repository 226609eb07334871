//! Pictures as SVG, for reports: of a study the trade-off of every group and its figures with their range, of a run its curves.

use moslim_charts::bars::{self, BarPlot};
use moslim_charts::front::{self, FrontPlot};
use moslim_charts::{LinePlot, Palette, View, line};
use moslim_shared::study::{METRICS, Spread, StudyGroup, StudyResults};
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
    out.extend(overview(results)?.map(|svg| ("overview.svg".to_string(), svg)));
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

/// What every group is worth in both tasks, control and trade-offs; `None` where there are no fronts to be compared.
///
/// # Errors
/// When it cannot be drawn.
pub fn overview(results: &StudyResults) -> anyhow::Result<Option<String>> {
    let draw = |points: Vec<Standing>| svg((820, 560), |area| draw_overview(area, &points, &Palette::paper()));
    standing(results).map(draw).transpose()
}

/// Groups whose utility is further than this below the best are not drawn: the others could not be told apart.
const NEAR: f64 = 0.1;

/// A group's place: name, control (hit rate) and front (expected utility), each with its interval.
struct Standing {
    name: String,
    control: (f64, f64, f64),
    utility: (f64, f64, f64),
}

/// Where groups stand; `None` where there are no fronts.
fn standing(results: &StudyResults) -> Option<Vec<Standing>> {
    let at = |id: &str| METRICS.iter().position(|m| m.id == id);
    let (control, utility) = (at("hit_rate")?, at("expected_utility")?);
    let spread = |s: &Spread| (s.mean, s.low, s.high);
    let all: Vec<Standing> = results
        .groups
        .iter()
        .filter(|g| !g.front.is_empty())
        .map(|g| Standing { name: name(g), control: spread(&g.metrics[control]), utility: spread(&g.metrics[utility]) })
        .collect();
    let best = all.iter().map(|s| s.utility.0).fold(f64::MIN, f64::max);
    let near: Vec<Standing> = all.into_iter().filter(|s| s.utility.0 > best - NEAR).collect();
    (near.len() > 1).then_some(near)
}

/// Control across, fronts up, with intervals, each with its name beside it.
fn draw_overview(area: &Area, points: &[Standing], palette: &Palette) -> Drawn {
    let text = |size: f64| TextStyle::from((FontFamily::SansSerif, size)).color(&palette.text);
    area.draw(&Text::new("What one gets: control across, trade-offs up; lines are 95 % intervals", (16, 14), text(16.0)))?;
    let (_, rest) = area.split_vertically(FRONT.1);
    let range = |of: fn(&Standing) -> (f64, f64, f64)| {
        let low = points.iter().map(|p| of(p).1).fold(f64::MAX, f64::min);
        let high = points.iter().map(|p| of(p).2).fold(f64::MIN, f64::max);
        let room = (high - low).max(1e-6) * 0.06;
        low - room..high + room
    };
    let mut chart = ChartBuilder::on(&rest)
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(58)
        .build_cartesian_2d(range(|p| p.control), range(|p| p.utility))?;
    chart
        .configure_mesh()
        .x_desc("hit rate: of single classes asked for, the share that came")
        .y_desc("expected utility of fourteen offers")
        .light_line_style(palette.grid.mix(0.0))
        .bold_line_style(palette.grid)
        .axis_style(palette.text)
        .label_style(text(12.0))
        .draw()?;
    let pixel = |p: &Standing| chart.as_coord_spec().translate(&(p.control.0, p.utility.0));
    let places: Vec<(i32, i32)> = points.iter().map(pixel).collect();
    let labels = beside(&places, &points.iter().map(|p| p.name.chars().count() as i32 * 6).collect::<Vec<_>>());
    for (g, p) in points.iter().enumerate() {
        let color = palette.ink(front::ink(g));
        let across = vec![(p.control.1, p.utility.0), (p.control.2, p.utility.0)];
        let up = vec![(p.control.0, p.utility.1), (p.control.0, p.utility.2)];
        chart.draw_series([across, up].map(|line| PathElement::new(line, color.mix(0.5).stroke_width(2))))?;
        chart.draw_series(std::iter::once(Circle::new((p.control.0, p.utility.0), 5, color.filled())))?;
    }
    let (origin_x, origin_y) = rest.get_base_pixel();
    for (g, p) in points.iter().enumerate() {
        let at = (labels[g].0 - origin_x, labels[g].1 - origin_y);
        rest.draw(&Text::new(p.name.clone(), at, text(12.5)))?;
    }
    Ok(())
}

/// Where names can stand beside their points without covering each other or another point: pixels of their upper left corners.
fn beside(points: &[(i32, i32)], widths: &[i32]) -> Vec<(i32, i32)> {
    const HEIGHT: i32 = 15;
    let mut taken: Vec<(i32, i32, i32, i32)> = points.iter().map(|p| (p.0 - 6, p.1 - 6, p.0 + 6, p.1 + 6)).collect();
    let place = |(&(x, y), &width): (&(i32, i32), &i32)| {
        let tries = (0..12).flat_map(|n| {
            // Above or below the line of the interval, on either side.
            let (above, below) = (y - HEIGHT - 1 - n * HEIGHT, y + 3 + n * HEIGHT);
            [(x + 7, above), (x + 7, below), (x - 7 - width, above), (x - 7 - width, below)]
        });
        let boxed = |(left, top): (i32, i32)| (left, top, left + width, top + HEIGHT);
        let is_free = |place: &(i32, i32)| {
            let b = boxed(*place);
            b.0 > 60 && b.2 < 815 && taken.iter().all(|t| b.2 < t.0 || b.0 > t.2 || b.3 < t.1 || b.1 > t.3)
        };
        let found = tries.into_iter().find(is_free).unwrap_or((x + 9, y));
        taken.push(boxed(found));
        found
    };
    points.iter().zip(widths).map(place).collect()
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
        groups: results
            .groups
            .iter()
            .enumerate()
            .map(|(n, g)| (front::ink(n), g.front.iter().filter_map(|p| at(p)).collect()))
            .collect(),
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
        assert_eq!(pictures.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["front.svg", "figures.svg"], "one has a front");
        for (_, svg) in &pictures {
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(svg.contains("second") && svg.contains("&lt;first&gt; &amp; one"), "labels are there, and escaped");
        }
        assert!(pictures[1].1.contains("0.500"));
    }

    #[test]
    fn names_cover_neither_points_nor_each_other() {
        let points: Vec<(i32, i32)> = (0..9).map(|n| (300 + 7 * (n % 3), 200 + 5 * (n / 3))).collect();
        let widths = [90; 9];
        let places = beside(&points, &widths);
        let boxes: Vec<_> = places.iter().map(|p| (p.0, p.1, p.0 + 90, p.1 + 15)).collect();
        for (n, a) in boxes.iter().enumerate() {
            assert!(points.iter().all(|p| p.0 < a.0 || p.0 > a.2 || p.1 < a.1 || p.1 > a.3), "{a:?} covers a point");
            for b in &boxes[n + 1..] {
                assert!(a.2 < b.0 || a.0 > b.2 || a.3 < b.1 || a.1 > b.3, "{a:?} covers {b:?}");
            }
        }
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
        assert_eq!(plot.groups, [(front::ink(0), vec![(0.5, 0.5)])]);
    }
}
