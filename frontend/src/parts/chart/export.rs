//! A chart as a file: a drawing with axes, legend and caption, or its data.

use super::Shown;
use super::reading::{self, names, rows, said, value};
use crate::parts::sheet::{self, Sheet, quoted};
use crate::parts::title::origin;
use leptos::prelude::*;
use moslim_charts::{Palette, Plot, View, band, line};
use serde_json::json;

/// Buttons that save a chart.
#[component]
pub(super) fn Save(shown: Shown, title: String, id: String) -> impl IntoView {
    let make = move |kind: &'static str| {
        let plot = shown.plot.get_untracked();
        match kind {
            "CSV" => csv(&plot),
            "JSON" => data(&title, &origin(), &plot),
            _ => svg(&title, &origin(), &plot, &untrack(|| shown.view())),
        }
    };
    view! { <sheet::Save name=id.trim_start_matches("chart-").to_string() make=Callback::new(make)/> }
}

/// All data, a line each.
fn csv(plot: &Plot) -> String {
    let x = if let Plot::Lines(p) = plot { p.x_title() } else { "step" };
    let mut text = std::iter::once(x.to_string()).chain(names(plot)).map(|n| quoted(&n)).collect::<Vec<_>>().join(",");
    text.push('\n');
    for (x, cells) in rows(plot) {
        let cells = cells.into_iter().map(|v| v.map(|v| v.to_string()).unwrap_or_default());
        text += &std::iter::once(x.to_string()).chain(cells).collect::<Vec<_>>().join(",");
        text.push('\n');
    }
    text
}

/// All data with what they are.
fn data(title: &str, source: &str, plot: &Plot) -> String {
    let (unit, x) = match plot {
        Plot::Lines(p) => (if p.percent { "share" } else { p.unit }, p.x_title()),
        Plot::Bands(_) => ("share", "step"),
    };
    let rows: Vec<_> = rows(plot).into_iter().map(|(x, values)| json!({ "x": x, "values": values })).collect();
    let document = json!({ "title": title, "source": source, "x": x, "unit": unit, "names": names(plot), "rows": rows });
    format!("{document:#}\n")
}

/// The drawing: what is shown, on paper, with title, legend and where it is from.
fn svg(title: &str, source: &str, plot: &Plot, view: &View) -> String {
    let palette = Palette::paper();
    let entry = |(n, name): (usize, String)| {
        let last = value(plot, n, None).filter(|_| !view.hidden.contains(&n))?;
        let (color, glyph) = match plot {
            Plot::Lines(p) => (palette.ink(p.series[n].ink), p.series[n].ink.glyph()),
            Plot::Bands(p) => (palette.class(p.objective, p.key(n), p.classes.len()), "■"),
        };
        Some((format!("{name} {}", said(plot, last)), color, glyph))
    };
    let entries = names(plot).into_iter().enumerate().filter_map(entry).collect();
    let sheet = Sheet { title, source, entries, y_title: reading::unit(plot), x_title: reading::across(plot) };
    sheet.svg(|area, palette| {
        // A drawing in memory takes everything.
        let _ = match plot {
            Plot::Lines(lines) => line::draw(area, lines, view, palette),
            Plot::Bands(bands) => band::draw(area, bands, view, palette),
        };
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_charts::{Ink, LinePlot, Series};

    fn plot() -> Plot {
        let points = vec![(1.0, 0.5), (2.0, 0.25)];
        let series = Series { label: "a, \"b\"".into(), ink: Ink::Strong, bold: true, points };
        Plot::Lines(LinePlot { series: vec![series], unit: "nats", ..Default::default() })
    }

    #[test]
    fn data_are_saved_whole() {
        assert_eq!(csv(&plot()), "step,\"a, \"\"b\"\"\"\n1,0.5\n2,0.25\n");
        let document: serde_json::Value = serde_json::from_str(&data("T", "/runs/a", &plot())).unwrap();
        assert_eq!((&document["unit"], &document["rows"][1]), (&json!("nats"), &json!({ "x": 2.0, "values": [0.25] })));
    }

    #[test]
    fn a_drawing_says_what_it_is_and_where_from() {
        let drawing = svg("Is it < that?", "/runs/a", &plot(), &View::default());
        for part in ["Is it &lt; that?", "a, &quot;b&quot; 0.250", "nats", ">step<", "/runs/a", "<polyline"] {
            assert!(drawing.contains(part), "{part} is not in {drawing}");
        }
        assert_eq!((drawing.matches("<svg ").count(), drawing.matches("</svg>").count()), (2, 2));
        let hidden = svg("T", "", &plot(), &View { hidden: vec![0], ..View::default() });
        assert!(!hidden.contains("polyline") && !hidden.contains("0.250"));
    }
}
