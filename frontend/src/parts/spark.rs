//! A small curve without axes: a title, its value, and its course, linked with the charts around it.

use crate::parts::chart::Linked;
use crate::parts::format;
use crate::parts::memo::memo;
use leptos::prelude::*;
use moslim_charts::line::thin;
use moslim_charts::smooth::{smoothed, spacing};
use moslim_charts::view::nearest;

/// Size of the drawing in its own units.
const SIZE: (f64, f64) = (200.0, 44.0);

/// A small curve.
#[component]
pub fn Spark(title: &'static str, unit: &'static str, points: Memo<Vec<(f64, f64)>>) -> impl IntoView {
    let linked = use_context::<Linked>().unwrap_or_default();
    let range = memo(move || points.with(|points| range(points)));
    let raw = memo(move || points.with(|points| path(points, range.get())));
    let average = memo(move || {
        let factor = linked.smoothing.get();
        points.with(
            |points| if factor > 0.0 { path(&smoothed(points, factor, spacing(points)), range.get()) } else { String::new() },
        )
    });
    let value = move || {
        let at = linked.at.get();
        let point = points.with(|points| at.map_or(points.last().copied(), |x| nearest(points, x)));
        point.map(|p| format::number(p.1, if p.1.abs() < 10.0 { 2 } else { 1 })).unwrap_or_default()
    };
    let hair = move || {
        let (x0, x1, ..) = range.get()?;
        linked.at.get().filter(|x| (x0..=x1).contains(x)).map(|x| (x - x0) / (x1 - x0).max(1e-9) * SIZE.0)
    };
    view! {
        <figure class="card spark">
            <figcaption>
                <span class="hint">{title}</span>
                <b class="num">{value}</b>
                <span class="hint">{unit}</span>
            </figcaption>
            <svg viewBox=format!("0 0 {} {}", SIZE.0, SIZE.1) preserveAspectRatio="none" aria-hidden="true">
                <path class="raw" class:alone=move || average.with(String::is_empty) d=move || raw.get()></path>
                <path d=move || average.get()></path>
                {move || hair().map(|x| view! { <line x1=x.to_string() x2=x.to_string() y1="0" y2=SIZE.1.to_string()></line> })}
            </svg>
        </figure>
    }
}

/// Smallest and largest x and y; zero is in sight.
fn range(points: &[(f64, f64)]) -> Option<(f64, f64, f64, f64)> {
    let finite = || points.iter().filter(|p| p.1.is_finite());
    let (first, last) = (finite().next()?, finite().next_back()?);
    let low = finite().map(|p| p.1).fold(0.0, f64::min);
    let high = finite().map(|p| p.1).fold(0.0, f64::max);
    Some((first.0, last.0, low, if high > low { high } else { low + 1.0 }))
}

/// The curve as the data of a path.
fn path(points: &[(f64, f64)], range: Option<(f64, f64, f64, f64)>) -> String {
    let Some((x0, x1, y0, y1)) = range else { return String::new() };
    let place =
        |(x, y): (f64, f64)| ((x - x0) / (x1 - x0).max(1e-9) * SIZE.0, SIZE.1 - 2.0 - (y - y0) / (y1 - y0) * (SIZE.1 - 4.0));
    let parts: Vec<String> = thin(points, 100)
        .into_iter()
        .map(place)
        .enumerate()
        .map(|(n, (x, y))| format!("{}{x:.1} {y:.1}", if n == 0 { 'M' } else { 'L' }))
        .collect();
    parts.join("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_from_corner_to_corner_with_zero_in_sight() {
        let points = [(1.0, 0.0), (3.0, 2.0)];
        assert_eq!(path(&points, range(&points)), "M0.0 42.0L200.0 2.0");
        assert_eq!(range(&[(1.0, 5.0), (2.0, f64::NAN), (4.0, 6.0)]), Some((1.0, 4.0, 0.0, 6.0)));
        assert_eq!(path(&[], range(&[])), "");
    }
}
