//! Which questions are asked: as many of each part of the split as of any other.

use crate::text::corpus::EncodedQuestion;
use rand::Rng;
use rand::rngs::StdRng;

/// `count` questions drawn at random, as many of each part of the split as of any other.
pub fn spread(questions: &[EncodedQuestion], count: usize, rng: &mut StdRng) -> Vec<usize> {
    let pool = Pool::new((0..questions.len()).collect(), questions);
    if pool.is_empty() { Vec::new() } else { (0..count).map(|n| pool.turn(n, rng)).collect() }
}

/// Questions to draw from, the parts of the split apart: they are of different size and count the same.
pub struct Pool {
    parts: Vec<Vec<usize>>,
}

impl Pool {
    /// The questions at `positions`.
    pub fn new(positions: Vec<usize>, questions: &[EncodedQuestion]) -> Self {
        let mut parts: std::collections::BTreeMap<usize, Vec<usize>> = std::collections::BTreeMap::new();
        positions.into_iter().for_each(|q| parts.entry(questions[q].part).or_default().push(q));
        Self { parts: parts.into_values().collect() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The `n`th question that is drawn, from 0: parts take turns.
    pub fn turn(&self, n: usize, rng: &mut StdRng) -> usize {
        let part = &self.parts[n % self.parts.len()];
        part[rng.random_range(0..part.len())]
    }

    /// All their positions.
    pub fn all(&self) -> impl Iterator<Item = usize> + '_ {
        self.parts.iter().flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn parts_of_different_size_count_the_same() {
        let question = |n: usize| EncodedQuestion { text: String::new(), tokens: vec![], topic: n, part: usize::from(n >= 90) };
        let questions: Vec<EncodedQuestion> = (0..100).map(question).collect();
        let drawn = spread(&questions, 60, &mut StdRng::seed_from_u64(1));
        assert_eq!((drawn.len(), drawn.iter().filter(|&&q| q >= 90).count()), (60, 30));
        // Every question may come: of ten, all do in 300 draws of their part. The first part has one more where they do not come out even.
        let drawn = spread(&questions, 601, &mut StdRng::seed_from_u64(1));
        assert_eq!((90..100).filter(|q| drawn.contains(q)).count(), 10);
        assert_eq!(drawn.iter().filter(|&&q| q < 90).count(), 301);
        assert!(spread(&[], 60, &mut StdRng::seed_from_u64(1)).is_empty());
        let pool = Pool::new(vec![3, 95, 4], &questions);
        assert_eq!(pool.all().collect::<Vec<_>>(), [3, 4, 95]);
    }
}
