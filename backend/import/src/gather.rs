//! Samples in order: put into buckets by their prompt, so that none has to be held with all others; what several raters said of one
//! answer comes together, and every prompt gets a split.

use crate::extract::{Rating, Sample};
use anyhow::{Context, Result};
use moslim_engine::data::ratings::kept::{KeptRating, KeptRow, Origin};
use moslim_engine::data::ratings::prompt_hash;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::Hasher;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

/// Buckets: each must fit into memory.
const BUCKETS: usize = 128;
/// Shares of prompts for training, and for training and validation.
const SHARES: [f64; 2] = [0.8, 0.9];
/// With so few prompts every split gets its exact share; with more, chance does that.
const FEW: usize = 4_096;

/// What is known of a sample that waits, beside its texts.
#[derive(Serialize, Deserialize)]
struct Waiting {
    hash: u64,
    ratings: Vec<Rating>,
    answer: String,
    file: u32,
    record: u64,
}

/// What gathering found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Gathered {
    pub prompts: u64,
    pub merged: u64,
    pub duplicates: u64,
}

/// Samples on their way into order.
pub struct Gatherer {
    buckets: Vec<BufWriter<File>>,
    /// Hashes of prompts, as long as they are few.
    few: HashSet<u64>,
    many: bool,
    repeated_is_rated_again: bool,
}

/// Writes pieces of bytes with their lengths before them.
fn write_pieces(to: &mut impl Write, pieces: [&[u8]; 3]) -> std::io::Result<()> {
    for piece in pieces {
        to.write_all(&(piece.len() as u64).to_le_bytes())?;
    }
    pieces.into_iter().try_for_each(|piece| to.write_all(piece))
}

/// The next three pieces of what was written so; `None` at the end.
fn next_pieces<'a>(from: &mut &'a [u8]) -> Result<Option<[&'a [u8]; 3]>> {
    if from.is_empty() {
        return Ok(None);
    }
    let torn = "what waits is torn";
    let (head, mut rest) = from.split_at_checked(24).context(torn)?;
    let mut out = [&head[..0]; 3];
    for (piece, length) in out.iter_mut().zip(head.chunks(8)) {
        let length = length.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
        (*piece, rest) = rest.split_at_checked(length).context(torn)?;
    }
    *from = rest;
    Ok(Some(out))
}

/// A hash of prompt and answer together.
fn pair_hash(prompt: &[u8], response: &[u8]) -> u64 {
    let mut hash = std::hash::DefaultHasher::new();
    hash.write(prompt);
    hash.write_u8(0xff);
    hash.write(response);
    hash.finish()
}

impl Gatherer {
    /// Begins, with files in `folder` that have no name, so that nothing is left of them whatever happens.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn new(folder: &Path, repeated_is_rated_again: bool) -> Result<Self> {
        let bucket = |_| tempfile::tempfile_in(folder).map(|f| BufWriter::with_capacity(1 << 14, f));
        let buckets = (0..BUCKETS).map(bucket).collect::<Result<_, _>>().with_context(|| format!("in {}", folder.display()))?;
        Ok(Self { buckets, few: HashSet::new(), many: false, repeated_is_rated_again })
    }

    /// Adds a sample of a file's record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, sample: Sample, file: u32, record: u64) -> Result<()> {
        let hash = prompt_hash(&sample.prompt);
        if !self.many {
            self.few.insert(hash);
            self.many = self.few.len() > FEW;
        }
        let Sample { prompt, response, ratings, answer } = sample;
        let about = serde_json::to_vec(&Waiting { hash, ratings, answer, file, record })?;
        let bucket = &mut self.buckets[hash as usize % BUCKETS];
        write_pieces(bucket, [prompt.as_bytes(), response.as_bytes(), &about]).context("writing what waits")
    }

    /// From which hash on a prompt is for validation, and for the test.
    fn edges(&self) -> [u64; 2] {
        if self.many {
            return SHARES.map(|share| (share * u64::MAX as f64) as u64);
        }
        let mut sorted: Vec<u64> = self.few.iter().copied().collect();
        sorted.sort_unstable();
        let n = sorted.len();
        // At least one prompt each, if there are three.
        let [first, second] = SHARES.map(|share| (share * n as f64).round() as usize);
        let second = second.min(n.saturating_sub(1));
        let first = first.min(second.saturating_sub(1)).max(usize::from(n > 2));
        [first, second.max(first)].map(|at| sorted.get(at).copied().unwrap_or(u64::MAX))
    }

    /// Hands on every row, and what of them was there already: its place, and the row that it repeats.
    ///
    /// # Errors
    /// When what waits cannot be read, or `each` or `again` ends it.
    pub fn finish(
        self,
        mut each: impl FnMut(KeptRow) -> Result<()>,
        mut again: impl FnMut(Origin, &Origin) -> Result<()>,
    ) -> Result<Gathered> {
        let edges = self.edges();
        let mut out = Gathered::default();
        for bucket in self.buckets {
            let mut file = bucket.into_inner().context("writing what waits")?;
            file.rewind()?;
            let mut bytes = Vec::new();
            BufReader::new(file).read_to_end(&mut bytes)?;
            let mut rows: Vec<KeptRow> = Vec::new();
            // Positions of rows by the hash of their texts, which are compared where it is the same.
            let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
            let mut prompts: HashSet<u64> = HashSet::new();
            let mut rest = bytes.as_slice();
            while let Some([prompt, response, about]) = next_pieces(&mut rest)? {
                let Waiting { hash, ratings, answer, file, record } =
                    serde_json::from_slice(about).context("reading what waits")?;
                let origin = Origin { file, record, answer };
                let same = places.entry(pair_hash(prompt, response)).or_default();
                let there_already = same
                    .iter()
                    .copied()
                    .find(|&at| rows[at].prompt.as_bytes() == prompt && rows[at].response.as_bytes() == response);
                let Some(at) = there_already else {
                    same.push(rows.len());
                    prompts.insert(hash);
                    let split = edges.iter().filter(|e| **e <= hash).count();
                    let ratings = ratings.into_iter().map(|r| kept(r, 0)).collect();
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).context("reading what waits");
                    let (prompt, response) = (text(prompt)?, text(response)?);
                    rows.push(KeptRow { prompt, response, split, origins: vec![origin], ratings });
                    continue;
                };
                let row = &mut rows[at];
                let new: Vec<Rating> = ratings.into_iter().filter(|r| self.repeated_is_rated_again || !there(row, r)).collect();
                if new.is_empty() {
                    out.duplicates += 1;
                    again(origin, &row.origins[0])?;
                    continue;
                }
                out.merged += new.len() as u64;
                let from = row.origins.len();
                row.ratings.extend(new.into_iter().map(|r| kept(r, from)));
                row.origins.push(origin);
            }
            out.prompts += prompts.len() as u64;
            rows.into_iter().try_for_each(&mut each)?;
        }
        Ok(out)
    }
}

/// Whether the row has the very same rating by the same rater.
fn there(row: &KeptRow, rating: &Rating) -> bool {
    row.ratings.iter().any(|r| r.objective == rating.objective && r.rater == rating.rater && r.score == rating.score)
}

fn kept(rating: Rating, origin: usize) -> KeptRating {
    let Rating { objective, rater, score } = rating;
    KeptRating { objective, rater, score, origin }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(prompt: &str, response: &str, rater: &str, score: f64) -> Sample {
        let ratings = vec![Rating { objective: 0, rater: rater.into(), score }];
        Sample { prompt: prompt.into(), response: response.into(), ratings, answer: String::new() }
    }

    fn gathered(samples: &[Sample], repeated: bool) -> (Vec<KeptRow>, Gathered, Vec<u64>) {
        let folder = tempfile::tempdir().unwrap();
        let mut gatherer = Gatherer::new(folder.path(), repeated).unwrap();
        for (n, sample) in samples.iter().enumerate() {
            gatherer.add(sample.clone(), 0, n as u64 + 1).unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the files have no names");
        let (mut rows, mut twice) = (Vec::new(), Vec::new());
        let found = gatherer
            .finish(
                |row| {
                    rows.push(row);
                    Ok(())
                },
                |origin, _| {
                    twice.push(origin.record);
                    Ok(())
                },
            )
            .unwrap();
        (rows, found, twice)
    }

    #[test]
    fn raters_of_one_answer_come_together_and_what_is_there_twice_is_dropped() {
        let samples = [
            sample("Q", "A", "x", 1.0),
            sample("Q", "A", "y", 2.0),
            sample("Q", "A", "x", 1.0),
            sample("Q", "B", "x", 1.0),
            sample("Q", "A", "x", 3.0),
        ];
        let (rows, found, twice) = gathered(&samples, false);
        assert_eq!(found, Gathered { prompts: 1, merged: 2, duplicates: 1 });
        assert_eq!((rows.len(), twice), (2, vec![3]));
        let of = |row: &KeptRow| {
            row.ratings.iter().map(|r| (r.rater.clone(), r.score, row.origins[r.origin].record)).collect::<Vec<_>>()
        };
        assert_eq!(of(&rows[0]), [("x".into(), 1.0, 1), ("y".into(), 2.0, 2), ("x".into(), 3.0, 5)]);
        let (rows, found, _) = gathered(&samples, true);
        assert_eq!((rows[0].ratings.len(), found.duplicates, found.merged), (4, 0, 3));
    }

    #[test]
    fn every_prompt_is_in_one_split_and_each_split_has_its_share() {
        let samples: Vec<Sample> = (0..30)
            .flat_map(|n| [sample(&format!("Question {n}?"), "A", "", 0.0), sample(&format!("question  {n}?"), "B", "", 0.0)])
            .collect();
        let (rows, found, _) = gathered(&samples, false);
        assert_eq!((rows.len(), found.prompts), (60, 30));
        let mut of: HashMap<String, HashSet<usize>> = HashMap::new();
        for row in &rows {
            of.entry(row.prompt.to_lowercase().replace("  ", " ")).or_default().insert(row.split);
        }
        assert!(of.len() == 30 && of.values().all(|s| s.len() == 1), "written otherwise, it is the same prompt");
        let count = |split: usize| of.values().filter(|s| s.contains(&split)).count();
        assert_eq!([0, 1, 2].map(count), [24, 3, 3]);
        let (rows, _, _) = gathered(&samples[..6], false);
        assert_eq!(rows.iter().map(|r| r.split).collect::<HashSet<_>>().len(), 3, "three prompts, three splits");
    }
}
