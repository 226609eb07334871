//! Which of the tries of a tuning study are taken: those with the best figures of the table that shows them.

use super::plan::Variant;
use super::results::{METRICS, StudyGroup, StudyResults};
use super::tries::APART;

/// What a table is about: the figures whose sum decides which settings it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Fronts,
    Control,
    /// Control by a policy that still speaks: of the tries that keep at least [`DISTINCT`] of their answers distinct and are as
    /// fluent as SFT; of all, where none does.
    SpokenControl,
}

/// The least share of distinct answers of a policy that has not collapsed.
pub const DISTINCT: f64 = 0.6;

impl Table {
    /// Ids of the figures.
    pub fn figures(self) -> &'static [&'static str] {
        match self {
            Self::Fronts => &["hypervolume", "expected_utility"],
            Self::Control | Self::SpokenControl => &["hit_rate", "joint_hit_rate"],
        }
    }

    /// What tries are compared by: the sum of the figures.
    pub fn sum(self, group: &StudyGroup) -> f64 {
        let figures = self.figures().iter().filter_map(|id| METRICS.iter().position(|m| m.id == *id));
        figures.filter_map(|m| group.metrics.get(m)).map(|s| s.mean).sum()
    }

    /// Whether a try may be taken before those that may not.
    fn admits(self, group: &StudyGroup) -> bool {
        let mean = |id: &str| METRICS.iter().position(|m| m.id == id).and_then(|m| group.metrics.get(m)).map(|s| s.mean);
        match (self, mean("unique"), mean("fluency"), mean("sft_fluency")) {
            (Self::SpokenControl, Some(distinct), Some(fluency), Some(before)) => distinct >= DISTINCT && fluency >= before,
            (Self::SpokenControl, ..) => false,
            _ => true,
        }
    }
}

/// The best tries of a method for each of `tables`, labelled by the method alone, and by the table where it is not the first's.
pub fn chosen(title: &str, tries: &[Variant], results: &StudyResults, tables: &[Table]) -> Vec<Variant> {
    let mut out: Vec<(String, Variant)> = Vec::new();
    for table in tables {
        let Some(best) = best(title, results, *table) else { continue };
        let Some(variant) = tries.iter().find(|v| v.label == best) else { continue };
        if out.iter().any(|(label, _)| *label == best) {
            continue;
        }
        let label = if out.is_empty() { title.to_string() } else { format!("{title}, tuned for control") };
        out.push((best, Variant { label, set: variant.set.clone() }));
    }
    out.into_iter().map(|(_, variant)| variant).collect()
}

/// The label of a method's try with the highest sum of a table's figures, of those that the table admits; the first on a tie.
pub fn best(title: &str, results: &StudyResults, table: Table) -> Option<String> {
    let mut best: Option<((bool, f64), &String)> = None;
    for group in &results.groups {
        let Some(label) = group.labels.first().filter(|l| l.split(APART).next() == Some(title)) else { continue };
        let score = (table.admits(group), table.sum(group));
        if best.is_none_or(|(most, _)| score > most) {
            best = Some((score, label));
        }
    }
    best.map(|(_, label)| label.clone())
}
