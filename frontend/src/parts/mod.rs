//! Small pieces that several pages share. They know what they are given, the theme and the browser; they know no page, no
//! request and no run.

pub mod address;
mod backend;
pub mod canvas;
pub mod chart;
pub mod class_bars;
pub mod every;
pub mod format;
pub mod front;
pub mod mapping;
pub mod matrix;
pub mod memo;
pub mod pick;
pub mod reliability;
pub mod save;
pub mod seen;
pub mod settling;
pub mod sheet;
pub mod spark;
pub mod stack;
pub mod table;
pub mod theme;
pub mod title;
pub mod tokens;
pub mod tour;
