//! Lists of runs: what a row of one shows, the filter that one is asked with (words, and conditions such as `method:moslim`, `seed:1` or
//! `hit>0.6`; parsed, and never evaluated), and the pages that a long one comes in.

use crate::event::{About, RunInfo, RunStatus};
use crate::order::places;
use crate::summary::RunSummary;
use serde::{Deserialize, Serialize};

/// Runs of a page, unless a number is asked for, and at most.
const ROWS: usize = 50;
pub const MOST_ROWS: usize = 500;

/// What a list says of a finished run's summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct Figures {
    /// Mean share of answers in the class that was asked for.
    pub hit: f64,
    /// Share of answers that met all that was asked.
    pub joint: f64,
    /// KL divergence from what it began as, nats.
    pub kl: f64,
    /// What it took in all.
    pub seconds: f64,
}

impl Figures {
    /// Those of a summary.
    pub fn of(summary: &RunSummary) -> Self {
        let control = &summary.control.policy;
        Self {
            hit: control.mean_hit_rate(),
            joint: control.joint_hit_rate,
            kl: summary.policy.kl,
            seconds: summary.seconds.total,
        }
    }
}

/// What a list is made of: runs, of which the summaries may be elsewhere, and their figures.
pub type Listed<'a> = (&'a RunInfo, Option<Figures>);

/// A run in a list: what is shown of it, and no more. Everything about it is a request of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct RunRow {
    pub id: String,
    /// What it is called: by a person, by its configuration, or by what it is.
    pub title: String,
    pub preset: String,
    pub method: String,
    pub optimizer: String,
    pub task: String,
    pub seed: u64,
    pub status: RunStatus,
    /// Why it failed or was interrupted; empty otherwise.
    pub message: String,
    /// Milliseconds since the Unix epoch.
    pub created: u64,
    pub last_seq: u64,
    /// As [`RunInfo::milestones`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones: Vec<u8>,
    pub about: About,
    /// Mean hit rate, share of answers that met all that was asked, KL divergence in nats, seconds in all; once it is finished.
    pub hit: Option<f64>,
    pub joint: Option<f64>,
    pub kl: Option<f64>,
    pub seconds: Option<f64>,
}

/// Names of what a row has, for people.
const FIELDS: &str = "id, title, preset, method, optimizer, task, seed, status, message, created, last_seq, milestones, about, hit, joint, kl, seconds";

impl RunRow {
    /// The row of a run.
    pub fn of((run, figures): Listed) -> Self {
        let config = &run.config;
        Self {
            id: run.id.clone(),
            title: run.title(),
            preset: run.preset.clone(),
            method: config.method.kind.title().into(),
            optimizer: config.policy.optimizer.title().into(),
            task: config.task.name.clone(),
            seed: run.seed,
            status: run.status,
            message: run.message.clone(),
            created: run.created,
            last_seq: run.last_seq,
            milestones: run.milestones.clone(),
            about: run.about.clone(),
            hit: figures.map(|f| f.hit),
            joint: figures.map(|f| f.joint),
            kl: figures.map(|f| f.kl),
            seconds: figures.map(|f| f.seconds),
        }
    }
}

/// What a list of runs is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::IntoParams), into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Words such as `method:moslim status:finished hit>0.6`; everything, where it is empty.
    #[serde(default)]
    pub filter: String,
    /// The order: `newest` first, as where nothing is said; `oldest` first; by `name`; the best `hit` rate first, and last who has none.
    #[serde(default)]
    pub sort: String,
    /// What rows shall have, by its names with commas between them, such as `id,title,hit`; everything, where it is empty.
    #[serde(default)]
    pub fields: String,
    /// Only runs that come after this one in the list: the last of the page before.
    #[serde(default)]
    pub after: Option<String>,
    /// Runs at most, 1 to 500; 50 where nothing is said.
    #[serde(default)]
    pub limit: Option<usize>,
}

impl ListQuery {
    /// Names of what rows shall have; none where they shall have everything.
    ///
    /// # Errors
    /// When rows have nothing of such a name; for people, with the field.
    pub fn wanted(&self) -> Result<Vec<&str>, String> {
        if self.fields.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<&str> = self.fields.split(',').collect();
        match names.iter().find(|name| !FIELDS.split(", ").any(|field| field == **name)) {
            Some(name) => Err(format!("fields: has \"{name:.64}\"; allowed is {FIELDS}")),
            None => Ok(names),
        }
    }
}

/// A page of a list, in the order that was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(not(target_family = "wasm"), derive(utoipa::ToSchema))]
pub struct RunsPage {
    pub rows: Vec<RunRow>,
    /// Runs that the filter takes, on all pages.
    pub total: usize,
    /// What the next page is asked for as `after`; none where this is the last.
    pub next: Option<String>,
}

impl RunsPage {
    /// The page of `runs`, in any order, that is asked for.
    ///
    /// # Errors
    /// When the filter is not understood, or the order or the limit not allowed; for people, with the field.
    pub fn of<'a>(runs: impl Iterator<Item = Listed<'a>>, query: &ListQuery) -> Result<Self, String> {
        let filter = Filter::parse(&query.filter).map_err(|e| format!("filter: {e}"))?;
        let sort = Sort::parse(&query.sort).map_err(|e| format!("sort: {e}"))?;
        let limit = query.limit.unwrap_or(ROWS);
        if !(1..=MOST_ROWS).contains(&limit) {
            return Err(format!("limit: is {limit}; allowed is 1 to {MOST_ROWS}"));
        }
        let mut taken: Vec<Listed> = runs.filter(|run| filter.takes(*run)).collect();
        sort.apply(&mut taken);
        let total = taken.len();
        let from = match &query.after {
            None => 0,
            Some(id) => match taken.iter().position(|(run, _)| run.id == *id) {
                Some(at) => at + 1,
                // It was put away or deleted meanwhile; which ones came after it is not known any more.
                None => return Err(format!("after: there is no run {id:.64} in this list; begin anew")),
            },
        };
        let rows: Vec<RunRow> = taken.iter().skip(from).take(limit).map(|run| RunRow::of(*run)).collect();
        let next = (from + rows.len() < total).then(|| rows.last().map(|row| row.id.clone())).flatten();
        Ok(Self { rows, total, next })
    }
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sort {
    Newest,
    Oldest,
    Name,
    Hit,
}

impl Sort {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "newest" => Ok(Self::Newest),
            "oldest" => Ok(Self::Oldest),
            "name" => Ok(Self::Name),
            "hit" => Ok(Self::Hit),
            _ => Err(format!("is {text:.64}; allowed is newest, oldest, name or hit")),
        }
    }

    /// Puts runs into this order. No two have the same place: what is equal is newest first, and of one moment by its id.
    fn apply(self, runs: &mut [Listed]) {
        let key = |n: usize| (runs[n].0.created, &runs[n].0.id);
        put(runs, &places(runs.len(), &|a, b| key(b).cmp(&key(a))));
        // These leave what is equal as it is.
        match self {
            Self::Newest => {}
            Self::Oldest => runs.reverse(),
            Self::Name => {
                let names: Vec<String> = runs.iter().map(|(run, _)| run.title().to_lowercase()).collect();
                put(runs, &places(runs.len(), &|a, b| names[a].cmp(&names[b])));
            }
            Self::Hit => put(runs, &places(runs.len(), &|a, b| rank(runs[b].1).total_cmp(&rank(runs[a].1)))),
        }
    }
}

fn put(runs: &mut [Listed], places: &[usize]) {
    let sorted: Vec<Listed> = places.iter().map(|&place| runs[place]).collect();
    runs.copy_from_slice(&sorted);
}

/// Its hit rate; less than any where there is none.
fn rank(figures: Option<Figures>) -> f64 {
    figures.map(|f| f.hit).filter(|hit| !hit.is_nan()).unwrap_or(f64::NEG_INFINITY)
}

/// One condition. All of a filter's must hold.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    /// Somewhere in name, id, preset, note or tags.
    Word(String),
    /// A text field has this in it.
    Field(Field, String),
    /// A figure is more, or less, than this.
    Figure(Figure, bool, f64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    Method,
    Optimizer,
    Preset,
    Status,
    Tag,
    Task,
    Seed,
    Is,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Figure {
    Hit,
    Joint,
    Kl,
    Seed,
    Seconds,
}

/// What is said of runs that were put away.
const ARCHIVED: &str = "archived";
/// Characters of the longest filter, and its most conditions.
const LONGEST: usize = 400;
const MOST_CONDITIONS: usize = 16;

/// What the list is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter(Vec<Condition>);

/// Names of fields and figures, for people.
pub const HELP: &str = "Words, or conditions: method: optimizer: preset: status: tag: task: seed: and hit, joint, kl, seconds with > or <, as in method:moslim hit>0.6; is:archived shows those that were put away";

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// When a condition names what there is not, or compares with no number; for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.chars().count() > LONGEST || text.split_whitespace().count() > MOST_CONDITIONS {
            return Err(format!("A filter has at most {LONGEST} characters and {MOST_CONDITIONS} conditions."));
        }
        text.split_whitespace().map(condition).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a run meets it. Those that were put away are shown to who asks for them.
    pub fn takes(&self, (run, figures): Listed) -> bool {
        let asked = self.0.iter().any(|c| matches!(c, Condition::Field(Field::Is, _)));
        run.about.archived == asked && self.0.iter().all(|condition| met(condition, run, figures))
    }
}

fn condition(part: &str) -> Result<Condition, String> {
    if let Some((name, value)) = part.split_once(':') {
        let field = match name {
            "method" => Field::Method,
            "optimizer" => Field::Optimizer,
            "preset" => Field::Preset,
            "status" => Field::Status,
            "tag" => Field::Tag,
            "task" => Field::Task,
            "seed" => Field::Seed,
            "is" if value == ARCHIVED => Field::Is,
            _ => return Err(format!("There is no field \"{name}\". {HELP}.")),
        };
        return Ok(Condition::Field(field, value.to_lowercase()));
    }
    let Some(at) = part.find(['>', '<']) else { return Ok(Condition::Word(part.to_lowercase())) };
    let (name, value) = (&part[..at], &part[at + 1..]);
    let figure = match name {
        "hit" => Figure::Hit,
        "joint" => Figure::Joint,
        "kl" => Figure::Kl,
        "seed" => Figure::Seed,
        "seconds" => Figure::Seconds,
        _ => return Err(format!("There is no figure \"{name}\". {HELP}.")),
    };
    let value = value.parse().map_err(|_| format!("\"{value}\" is no number."))?;
    Ok(Condition::Figure(figure, part[at..].starts_with('>'), value))
}

fn met(condition: &Condition, run: &RunInfo, figures: Option<Figures>) -> bool {
    match condition {
        Condition::Word(word) => {
            let mut texts = vec![run.title(), run.id.clone(), run.preset.clone(), run.about.note.clone()];
            texts.extend(run.about.tags.iter().cloned());
            texts.iter().any(|text| text.to_lowercase().contains(word))
        }
        Condition::Field(field, value) => {
            let has = |text: &str| text.to_lowercase().contains(value);
            match field {
                Field::Method => has(run.config.method.kind.title()),
                Field::Optimizer => has(run.config.policy.optimizer.title()),
                Field::Preset => has(&run.preset),
                Field::Status => has(&format!("{:?}", run.status)),
                Field::Tag => run.about.tags.iter().any(|tag| has(tag)),
                Field::Task => has(&run.config.task.name) || has(&format!("{:?}", run.config.task.kind)),
                Field::Seed => run.seed.to_string() == *value,
                Field::Is => run.about.archived,
            }
        }
        Condition::Figure(figure, more, value) => {
            let own = match figure {
                Figure::Hit => figures.map(|f| f.hit),
                Figure::Joint => figures.map(|f| f.joint),
                Figure::Kl => figures.map(|f| f.kl),
                Figure::Seconds => figures.map(|f| f.seconds),
                Figure::Seed => Some(run.seed as f64),
            };
            // What was not measured is neither more nor less.
            own.is_some_and(|own| if *more { own > *value } else { own < *value })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;

    fn run(seed: u64) -> RunInfo {
        let mut run = RunInfo::new("20261127-1", &RunConfig { seed, preset: "quick".into(), ..Default::default() }, 0);
        run.about.tags = vec!["thesis".into()];
        run.status = RunStatus::Finished;
        run
    }

    #[test]
    fn conditions_are_read_and_all_must_hold() {
        let takes = |text: &str| Filter::parse(text).unwrap().takes((&run(7), None));
        for text in ["", "quick", "MOSLIM", "method:moslim", "seed:7", "seed>6 seed<8", "status:finished tag:thes", "20261127"] {
            let expected = text != "MOSLIM";
            assert_eq!(takes(text), expected, "{text}");
        }
        for text in ["seed:70", "seed>7", "hit>0", "hit<1", "method:ric", "quick slow", "optimizer:ppo"] {
            assert!(!takes(text), "{text}");
        }
    }

    #[test]
    fn figures_are_compared_where_there_are_some() {
        let figures = Some(Figures { hit: 0.5, joint: 0.25, kl: 2.0, seconds: 60.0 });
        for (text, with, without) in [
            ("hit>0.4", true, false),
            ("hit>0.5", false, false),
            ("joint<0.3 kl<3", true, false),
            ("seconds>60", false, false),
            ("seed<8", true, true),
        ] {
            let takes = |figures| Filter::parse(text).unwrap().takes((&run(7), figures));
            assert_eq!((takes(figures), takes(None)), (with, without), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert!(Filter::parse("kindness>1").unwrap_err().contains("no figure \"kindness\""));
        assert!(Filter::parse("mood:good").unwrap_err().contains("no field \"mood\""));
        assert!(Filter::parse("hit>high").unwrap_err().contains("\"high\" is no number"));
    }

    #[test]
    fn pages_follow_each_other_newest_first_and_what_was_put_away_is_asked_for() {
        let mut runs: Vec<RunInfo> = (0..5).map(|n| RunInfo { id: format!("r{n}"), created: n / 2, ..run(n) }).collect();
        runs[3].about.archived = true;
        let page = |filter: &str, after: Option<&str>, limit| {
            let query = ListQuery { filter: filter.into(), after: after.map(Into::into), limit, ..Default::default() };
            RunsPage::of(runs.iter().map(|run| (run, None)), &query)
        };
        let ids = |page: &RunsPage| page.rows.iter().map(|r| r.id.clone()).collect::<Vec<_>>();
        let first = page("", None, Some(3)).unwrap();
        // Of the same moment, the later name first.
        assert_eq!(
            (ids(&first), first.total, first.next.as_deref()),
            (vec!["r4".into(), "r2".into(), "r1".into()], 4, Some("r1"))
        );
        let second = page("", Some("r1"), Some(3)).unwrap();
        assert_eq!((ids(&second), second.total, second.next), (vec!["r0".to_string()], 4, None));
        assert_eq!(ids(&page("is:archived", None, None).unwrap()), ["r3"]);
        assert_eq!(page("", None, Some(4)).unwrap().next, None);
        for (filter, after, limit, said) in [
            ("x:y", None, None, "filter: "),
            ("", Some("r9"), None, "after: "),
            ("", None, Some(0), "limit: is 0"),
            ("is:new", None, None, "filter: "),
        ] {
            assert!(page(filter, after, limit).unwrap_err().contains(said), "{said}");
        }
        assert!(page(&"a ".repeat(17), None, None).is_err() && page(&"a".repeat(401), None, None).is_err());
    }

    #[test]
    fn every_order_holds_over_pages_and_what_is_equal_keeps_its_place() {
        let known = [
            ("a", "tea", 3, Some(0.5)),
            ("b", "Coffee", 1, None),
            ("c", "tea", 2, Some(0.9)),
            ("d", "Tea", 2, Some(0.5)),
            ("e", "milk", 1, None),
        ];
        let runs = known.map(|(id, name, created, hit)| {
            let info = RunInfo { id: id.into(), name: name.into(), created, ..run(1) };
            (info, hit.map(|hit| Figures { hit, ..Default::default() }))
        });
        let page = |query: &ListQuery| RunsPage::of(runs.iter().map(|(run, figures)| (run, *figures)), query);
        for (sort, expected) in [("", "adceb"), ("newest", "adceb"), ("oldest", "becda"), ("name", "beadc"), ("hit", "cadeb")] {
            for limit in 1..=6 {
                let (mut found, mut after) = (String::new(), None);
                loop {
                    let query = ListQuery { sort: sort.into(), after, limit: Some(limit), ..Default::default() };
                    let next = page(&query).unwrap();
                    next.rows.iter().for_each(|row| found.push_str(&row.id));
                    after = next.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(found, expected, "{sort}, {limit} on a page");
            }
        }
        let refused = page(&ListQuery { sort: "best".into(), ..Default::default() }).unwrap_err();
        assert_eq!(refused, "sort: is best; allowed is newest, oldest, name or hit");
    }

    #[test]
    fn rows_are_asked_for_by_the_names_of_what_they_have() {
        let query = |fields: &str| ListQuery { fields: fields.into(), ..Default::default() };
        // Where there are no milestones, a row does not mention them.
        let row = RunRow::of((&RunInfo { milestones: vec![50], ..run(1) }, None));
        let row = serde_json::to_value(row).unwrap();
        let all: Vec<&str> = FIELDS.split(", ").collect();
        assert_eq!(query(&all.join(",")).wanted(), Ok(all.clone()));
        let has = row.as_object().unwrap();
        assert!(all.len() == has.len() && all.iter().all(|name| has.contains_key(*name)), "{row}");
        assert_eq!((query("").wanted(), query("hit,id").wanted()), (Ok(vec![]), Ok(vec!["hit", "id"])));
        for (fields, said) in [("id,hit_rate", "fields: has \"hit_rate\"; allowed is id, title, "), ("id,", "has \"\"")] {
            assert!(query(fields).wanted().unwrap_err().contains(said), "{fields}");
        }
    }
}
