//! Preferences: which objectives are asked for, and at which class.

use crate::objective::{Objective, index_of};
use serde::{Deserialize, Serialize};

/// What a prompt asks for: one entry per objective, `Some(class)` where it is asked for (`m_i = 1`), `None` where it is
/// masked (`m_i = 0`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
#[serde(transparent)]
pub struct Preference(pub Vec<Option<usize>>);

/// Why a preference could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreferenceError {
    #[error("\"{part}\" is not of the form objective=class")]
    Form { part: String },
    #[error("unknown objective \"{id}\"; known are {known}")]
    Objective { id: String, known: String },
    #[error("objective \"{id}\" has no class \"{class}\"; allowed are {allowed}")]
    Class { id: String, class: String, allowed: String },
    #[error("objective \"{id}\" is asked for twice")]
    Twice { id: String },
}

impl Preference {
    /// The preference that asks for nothing.
    ///
    /// ```
    /// use moslim_shared::preference::Preference;
    /// assert_eq!(Preference::none(2).active(), 0);
    /// ```
    pub fn none(objectives: usize) -> Self {
        Self(vec![None; objectives])
    }

    /// Asks for one objective only.
    ///
    /// ```
    /// use moslim_shared::preference::Preference;
    /// assert_eq!(Preference::single(3, 1, 4), Preference(vec![None, Some(4), None]));
    /// ```
    pub fn single(objectives: usize, objective: usize, class: usize) -> Self {
        let mut preference = Self::none(objectives);
        preference.0[objective] = Some(class);
        preference
    }

    /// The (objective, class) pairs asked for, in objective order.
    ///
    /// ```
    /// use moslim_shared::preference::Preference;
    /// assert_eq!(Preference(vec![None, Some(4), Some(0)]).asked().collect::<Vec<_>>(), [(1, 4), (2, 0)]);
    /// ```
    pub fn asked(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.0.iter().enumerate().filter_map(|(i, t)| t.map(|t| (i, t)))
    }

    /// Number of objectives asked for.
    pub fn active(&self) -> usize {
        self.asked().count()
    }

    /// Prompt tags in objective order, for example `<helpfulness=4><verbosity=0>`.
    ///
    /// ```
    /// use moslim_shared::objective::Objective;
    /// use moslim_shared::preference::Preference;
    /// let objectives = [
    ///     Objective::new("helpfulness", "", "", &["none", "half", "all"]),
    ///     Objective::new("verbosity", "", "", &["short", "long"]),
    /// ];
    /// assert_eq!(Preference(vec![Some(2), Some(0)]).tags(&objectives), "<helpfulness=2><verbosity=0>");
    /// ```
    pub fn tags(&self, objectives: &[Objective]) -> String {
        self.asked().map(|(i, t)| objectives[i].tag(t)).collect()
    }

    /// Reads `helpfulness=4,verbosity=0`. A class may also be given by its label; an empty text asks for nothing.
    ///
    /// ```
    /// use moslim_shared::objective::Objective;
    /// use moslim_shared::preference::Preference;
    /// let objectives = [
    ///     Objective::new("helpfulness", "", "", &["none", "half", "all"]),
    ///     Objective::new("verbosity", "", "", &["short", "long"]),
    /// ];
    /// assert_eq!(Preference::parse("verbosity=long", &objectives), Ok(Preference(vec![None, Some(1)])));
    /// assert!(Preference::parse("kindness=1", &objectives).is_err());
    /// ```
    pub fn parse(text: &str, objectives: &[Objective]) -> Result<Self, PreferenceError> {
        let mut preference = Self::none(objectives.len());
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (id, class) = part.split_once('=').ok_or_else(|| PreferenceError::Form { part: part.to_string() })?;
            let (id, class) = (id.trim(), class.trim());
            let i = index_of(objectives, id).ok_or_else(|| PreferenceError::Objective {
                id: id.to_string(),
                known: objectives.iter().map(|o| o.id.as_str()).collect::<Vec<_>>().join(", "),
            })?;
            let classes = &objectives[i].classes;
            let t = class
                .parse::<usize>()
                .ok()
                .filter(|&t| t < classes.len())
                .or_else(|| classes.iter().position(|c| c == class))
                .ok_or_else(|| PreferenceError::Class {
                    id: id.to_string(),
                    class: class.to_string(),
                    allowed: classes.iter().enumerate().map(|(c, l)| format!("{c} ({l})")).collect::<Vec<_>>().join(", "),
                })?;
            if preference.0[i].replace(t).is_some() {
                return Err(PreferenceError::Twice { id: id.to_string() });
            }
        }
        Ok(preference)
    }

    /// Writes what [`Preference::parse`] reads.
    ///
    /// ```
    /// use moslim_shared::objective::Objective;
    /// use moslim_shared::preference::Preference;
    /// let objectives = [
    ///     Objective::new("helpfulness", "", "", &["none", "half", "all"]),
    ///     Objective::new("verbosity", "", "", &["short", "long"]),
    /// ];
    /// assert_eq!(Preference(vec![Some(2), None]).print(&objectives), "helpfulness=2");
    /// ```
    pub fn print(&self, objectives: &[Objective]) -> String {
        self.asked().map(|(i, t)| format!("{}={}", objectives[i].id, t)).collect::<Vec<_>>().join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objectives() -> Vec<Objective> {
        vec![
            Objective::new("helpfulness", "", "", &["none", "half", "all"]),
            Objective::new("verbosity", "", "", &["short", "long"]),
        ]
    }

    #[test]
    fn print_and_parse_are_inverse() {
        let objectives = objectives();
        for a in [None, Some(0), Some(2)] {
            for b in [None, Some(1)] {
                let preference = Preference(vec![a, b]);
                assert_eq!(Preference::parse(&preference.print(&objectives), &objectives), Ok(preference));
            }
        }
        assert_eq!(Preference::parse("verbosity=long", &objectives), Ok(Preference(vec![None, Some(1)])));
        assert_eq!(Preference(vec![Some(2), Some(0)]).tags(&objectives), "<helpfulness=2><verbosity=0>");
    }

    #[test]
    fn refusals_name_the_place() {
        let refuse = |text: &str| Preference::parse(text, &objectives()).unwrap_err().to_string();
        assert!(refuse("helpfulness=3").contains("allowed are 0 (none), 1 (half), 2 (all)"));
        assert!(refuse("kindness=1").contains("known are helpfulness, verbosity"));
        assert!(refuse("helpfulness").contains("objective=class"));
        assert!(refuse("verbosity=0,verbosity=1").contains("twice"));
    }
}
