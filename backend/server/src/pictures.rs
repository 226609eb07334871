//! Pictures of a study's results as SVG, for reports: the trade-off of every group, and its figures with their range.

use moslim_shared::pareto::front;
use moslim_shared::study::{METRICS, StudyGroup, StudyResults};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Colours that people with colour blindness can tell apart (Okabe & Ito), on white; yellow is left out.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(60, 60, 60),
];
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(225, 225, 225);
/// Figures that are drawn, by their position in [`METRICS`].
const DRAWN: [&str; 6] = ["hypervolume", "spearman", "hit_rate", "joint_hit_rate", "fluency", "mega_passes"];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn text(size: f64) -> TextStyle<'static> {
    TextStyle::from((FontFamily::SansSerif, size)).color(&INK)
}

/// Name of a group.
fn name(group: &StudyGroup) -> String {
    group.labels.join(" · ")
}

/// `front.svg` where there are fronts of at least two objectives, and `figures.svg`: name and content.
///
/// # Errors
/// When a picture cannot be drawn.
pub fn of_study(results: &StudyResults) -> anyhow::Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    if results.objectives.len() >= 2 && results.groups.iter().any(|g| !g.front.is_empty()) {
        out.push(("front.svg".to_string(), svg((820, 560), |area| draw_front(area, results))?));
    }
    let height = 60 + DRAWN.len().div_ceil(2) as u32 * (60 + 24 * results.groups.len() as u32);
    out.push(("figures.svg".to_string(), svg((1180, height), |area| draw_figures(area, results))?));
    Ok(out)
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

/// First objective against the mean of the others: every point of every group, and its front as a step line.
fn draw_front(area: &Area, results: &StudyResults) -> Drawn {
    let first = &results.objectives[0];
    let others = results.objectives[1..].join(", ");
    let (plot, legend) = area.split_horizontally(560);
    let mut chart = ChartBuilder::on(&plot)
        .caption("Trade-offs, mean of seeds (0 worst class, 1 best)", text(16.0))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..1.02, 0.0..1.02)?;
    chart
        .configure_mesh()
        .x_desc(first)
        .y_desc(format!("mean of {others}"))
        .axis_desc_style(text(14.0))
        .label_style(text(12.0))
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .draw()?;
    for (n, group) in results.groups.iter().enumerate() {
        let color = COLORS[n % COLORS.len()];
        let points: Vec<Vec<f64>> =
            group.front.iter().map(|p| vec![p[0], p[1..].iter().sum::<f64>() / (p.len() - 1).max(1) as f64]).collect();
        let best = front(&points);
        for (i, p) in points.iter().enumerate() {
            let style = color.mix(if best.contains(&i) { 1.0 } else { 0.3 });
            mark(&chart, n, (p[0], p[1]), style)?;
        }
        let line = steps(best.iter().map(|&i| (points[i][0], points[i][1])).collect());
        chart.draw_series(std::iter::once(PathElement::new(line, color.mix(0.7).stroke_width(2))))?;
    }
    for (n, group) in results.groups.iter().enumerate() {
        let y = 60 + 26 * n as i32;
        let color = COLORS[n % COLORS.len()];
        legend.draw(&shape(n, (14, y), 5, color.mix(1.0)))?;
        legend.draw(&Text::new(name(group), (28, y - 7), text(13.0)))?;
    }
    Ok(())
}

/// A front as what can be reached: from point to point at the lower of both, never through what lies between.
fn steps(mut points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut out: Vec<(f64, f64)> = Vec::new();
    for p in points {
        if let Some(&(x, _)) = out.last() {
            out.push((x, p.1));
        }
        out.push(p);
    }
    out
}

/// A marker: groups differ in shape, not in colour alone.
fn shape(n: usize, at: (i32, i32), size: i32, style: RGBAColor) -> Polygon<(i32, i32)> {
    let (x, y) = at;
    let corners: Vec<(i32, i32)> = match n % 4 {
        0 => (0..12).map(|k| f64::from(k) * std::f64::consts::TAU / 12.0).map(|a| corner(at, size, a)).collect(),
        1 => vec![(x - size, y - size), (x + size, y - size), (x + size, y + size), (x - size, y + size)],
        2 => vec![(x, y - size - 1), (x + size + 1, y + size), (x - size - 1, y + size)],
        _ => vec![(x, y - size - 2), (x + size + 2, y), (x, y + size + 2), (x - size - 2, y)],
    };
    Polygon::new(corners, style.filled())
}

fn corner((x, y): (i32, i32), size: i32, angle: f64) -> (i32, i32) {
    (x + (f64::from(size) * angle.cos()).round() as i32, y + (f64::from(size) * angle.sin()).round() as i32)
}

fn mark<X: plotters::coord::ranged1d::Ranged<ValueType = f64>, Y: plotters::coord::ranged1d::Ranged<ValueType = f64>>(
    chart: &ChartContext<SVGBackend, Cartesian2d<X, Y>>,
    n: usize,
    at: (f64, f64),
    style: RGBAColor,
) -> Drawn {
    let area = chart.plotting_area();
    area.strip_coord_spec().draw(&shape(n, relative(area, at), 4, style))
}

/// Pixels within the plotting area.
fn relative<X: plotters::coord::ranged1d::Ranged<ValueType = f64>, Y: plotters::coord::ranged1d::Ranged<ValueType = f64>>(
    area: &DrawingArea<SVGBackend, Cartesian2d<X, Y>>,
    at: (f64, f64),
) -> (i32, i32) {
    let (x, y) = area.map_coordinate(&at);
    let (left, top) = area.get_base_pixel();
    (x - left, y - top)
}

/// A bar for every group and figure: the mean, and a line from the lowest to the highest seed.
fn draw_figures(area: &Area, results: &StudyResults) -> Drawn {
    area.draw(&Text::new(format!("{}: mean of the seeds, and their range", results.name), (16, 14), text(16.0)))?;
    let (_, rest) = area.split_vertically(44);
    let cells = rest.split_evenly((DRAWN.len().div_ceil(2), 2));
    for (cell, id) in cells.iter().zip(DRAWN) {
        let Some(m) = METRICS.iter().position(|m| m.id == id) else { continue };
        let top = results.groups.iter().map(|g| g.metrics[m].high).filter(|v| v.is_finite()).fold(0.0, f64::max);
        let scale = if top > 0.0 { 300.0 / top } else { 0.0 };
        cell.draw(&Text::new(METRICS[m].title, (16, 8), text(14.0)))?;
        for (n, group) in results.groups.iter().enumerate() {
            let y = 36 + 24 * n as i32;
            let spread = group.metrics[m];
            let x = |v: f64| 200 + (v.max(0.0) * scale).round() as i32;
            let label = text(12.0).pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Right,
                plotters::style::text_anchor::VPos::Center,
            ));
            cell.draw(&Text::new(shorten(&name(group)), (192, y), label))?;
            let color = COLORS[n % COLORS.len()];
            cell.draw(&Rectangle::new([(200, y - 8), (x(spread.mean).max(201), y + 8)], color.mix(0.75).filled()))?;
            cell.draw(&PathElement::new(vec![(x(spread.low), y), (x(spread.high), y)], INK.stroke_width(2)))?;
            cell.draw(&Text::new(format!("{:.3}", spread.mean), (x(spread.high) + 6, y - 7), text(12.0)))?;
        }
    }
    Ok(())
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 30 { text.to_string() } else { text.chars().take(29).chain(['…']).collect() }
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
    fn fronts_are_steps() {
        assert_eq!(steps(vec![(0.8, 0.2), (0.1, 0.9)]), [(0.1, 0.9), (0.1, 0.2), (0.8, 0.2)]);
    }
}
