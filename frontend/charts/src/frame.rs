//! Axes, labels and margins that all charts share.

use crate::palette::Palette;
use crate::view::Geometry;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

pub type Chart<'a, DB> = ChartContext<'a, DB, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Where the data of a chart are.
pub fn geometry<DB: DrawingBackend>(chart: &Chart<DB>, x: (f64, f64), y: (f64, f64)) -> Geometry {
    let ((left, top), (width, height)) = (chart.plotting_area().get_base_pixel(), chart.plotting_area().dim_in_pixel());
    let (left, top) = (f64::from(left), f64::from(top));
    Geometry { left, right: left + f64::from(width), top, bottom: top + f64::from(height), x, y, log_x: false }
}

/// A chart over steps or KL.
pub struct Frame<'f> {
    pub x: (f64, f64),
    pub y: (f64, f64),
    pub y_labels: usize,
    /// Whether horizontal lines mark the labels.
    pub grid: bool,
    pub format_x: &'f dyn Fn(&f64) -> String,
    pub format_y: &'f dyn Fn(&f64) -> String,
}

impl Frame<'_> {
    /// Draws the axes and returns the chart to draw in.
    pub fn draw<'a, DB: DrawingBackend>(
        &self,
        area: &'a DrawingArea<DB, Shift>,
        palette: &Palette,
    ) -> DrawResult<Chart<'a, DB>, DB> {
        let (y0, y1) = self.y;
        let label = TextStyle::from((FontFamily::SansSerif, f64::from(palette.px(12.0)))).color(&palette.text);
        let mut widest = 0u32;
        for value in [y0, y1, (y0 + y1) / 2.0] {
            widest = widest.max(area.estimate_text_size(&(self.format_y)(&value), &label)?.0);
        }
        let mut chart = ChartBuilder::on(area)
            .margin_top(palette.px(10.0))
            .margin_right(palette.px(16.0))
            .margin_bottom(palette.px(2.0))
            .margin_left(palette.px(2.0))
            .x_label_area_size(palette.px(26.0))
            .y_label_area_size(widest as i32 + palette.px(14.0))
            .build_cartesian_2d(self.x.0..self.x.1, y0..y1)?;
        let bold = if self.grid { palette.grid.mix(1.0) } else { TRANSPARENT };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(5)
            .y_labels(self.y_labels)
            .max_light_lines(1)
            .light_line_style(TRANSPARENT)
            .bold_line_style(bold)
            .axis_style(palette.grid)
            .label_style(label)
            .set_all_tick_mark_size(palette.px(3.0))
            .x_label_formatter(&self.format_x)
            .y_label_formatter(&self.format_y)
            .draw()?;
        Ok(chart)
    }
}
