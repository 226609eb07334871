//! Methods: each reads top to bottom like a recipe.

pub mod moslim;
mod supervised;
