//! Sorting by what a closure says, in one piece of code for all types: each further kind of sorting would be a kilobyte of what the page
//! is sent as.

use std::cmp::Ordering;

/// Places 0 to `n - 1` in an order; equal ones stay as they are.
///
/// ```
/// use moslim_shared::order::places;
/// let values = [2.0_f64, 1.0, 2.0, 0.5];
/// assert_eq!(places(4, &|a, b| values[a].total_cmp(&values[b])), [3, 1, 0, 2]);
/// ```
pub fn places(n: usize, order: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..n).collect();
    places.sort_by(|&a, &b| order(a, b));
    places
}

/// `items` in an order; equal ones stay as they are.
///
/// ```
/// use moslim_shared::order::sorted;
/// assert_eq!(sorted(vec!["bb", "a", "cc"], |a, b| a.len().cmp(&b.len())), ["a", "bb", "cc"]);
/// ```
pub fn sorted<T>(items: Vec<T>, order: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    let places = places(items.len(), &|a, b| order(&items[a], &items[b]));
    let mut items: Vec<Option<T>> = items.into_iter().map(Some).collect();
    places.into_iter().filter_map(|place| items[place].take()).collect()
}
