//! Labelled rows drawn so that every class of every objective is asked for as often as any other.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::collections::BTreeMap;

/// Which rows have which class.
pub struct Classes {
    /// `[steered objective]`: its position, and for each of its classes that occurs the rows that have it.
    rows: Vec<(usize, Vec<Vec<usize>>)>,
}

impl Classes {
    /// `rows`: the classes of each.
    pub fn of<'a>(rows: impl Iterator<Item = &'a [usize]> + Clone, steered: &[usize]) -> Self {
        let of = |&objective: &usize| {
            let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            rows.clone().enumerate().for_each(|(n, row)| places.entry(row[objective]).or_default().push(n));
            (objective, places.into_values().collect())
        };
        Self { rows: steered.iter().map(of).collect() }
    }

    /// A row that has a class of an objective, and the objective that its prompt is to name, and whether it is to name that alone: objective
    /// and class are drawn first, so that rare ones are as frequent as any.
    pub fn draw(&self, rng: &mut StdRng) -> (usize, Option<Wish>) {
        let (objective, classes) = self.rows.choose(rng).expect("something is steered");
        let row = classes.choose(rng).and_then(|rows| rows.choose(rng)).copied().expect("there are rows");
        (row, Some(Wish { objective: *objective, alone: rng.random_bool(ALONE) }))
    }
}

/// What a prompt is to name, and whether nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub objective: usize,
    pub alone: bool,
}

/// Share of the prompts of balanced classes that name one objective.
const ALONE: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_classes_are_drawn_as_often_as_others() {
        // Of the first objective one row in ten has class 1; the third has three classes; the second is not steered.
        let rows: Vec<[usize; 3]> = (0..30).map(|n| [usize::from(n % 10 == 0), 9, n % 3]).collect();
        let classes = Classes::of(rows.iter().map(|r| r.as_slice()), &[0, 2]);
        let mut rng: StdRng = rand::SeedableRng::seed_from_u64(1);
        let mut counts = BTreeMap::new();
        let mut alone = 0;
        for _ in 0..6_000 {
            let (n, wish) = classes.draw(&mut rng);
            let wish = wish.unwrap();
            *counts.entry((wish.objective, rows[n][wish.objective])).or_insert(0) += 1;
            alone += usize::from(wish.alone);
        }
        for (key, expected) in [((0, 0), 1_500), ((0, 1), 1_500), ((2, 0), 1_000), ((2, 1), 1_000), ((2, 2), 1_000)] {
            assert!(i32::abs(counts[&key] - expected) < 150, "{counts:?}");
        }
        assert!(counts.len() == 5 && (2_700..3_300).contains(&alone), "{alone}");
    }
}
