//! Charts: pure drawings from plain data, on whatever plotters can draw on. The page draws on a canvas, the server writes SVG.
//!
//! Here belong what is drawn and how it looks. How data becomes a plot does not: the page makes plots of a run's state, the
//! server of a study's results. Nothing here knows a browser, a file or a request.

pub mod band;
pub mod bars;
mod frame;
pub mod front;
mod heat;
pub mod line;
pub mod palette;
pub mod plot;
#[cfg(test)]
mod recorder;
mod ridges;
pub mod smooth;
pub mod view;

pub use palette::{INKS, Ink, Palette, ramp};
pub use plot::{BandPlot, LinePlot, Over, Plot, SHARE, Series, Shape};
pub use view::{Geometry, View};
