//! From a record to samples: a prompt, an answer, and what raters said of it.

use crate::datum::Datum;
use crate::dialogue;
use crate::mapping::{Dialogue, EACH, Mapping, ObjectiveMapping, Plain};
use crate::path::{Entry, Path};
use crate::pick::Wanted;
use crate::records::Defect;
use serde::{Deserialize, Serialize};

/// What one rater said of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rating {
    /// Position of the objective.
    pub objective: usize,
    /// The rater's name; empty where there is none.
    pub rater: String,
    /// On the scale of classes: 0 is the lowest; a mean of several raters lies between classes.
    pub score: f64,
}

/// An answer with its ratings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub prompt: String,
    pub response: String,
    pub ratings: Vec<Rating>,
    /// Which answer of its record it is; empty where a record has one.
    pub answer: String,
}

/// A mapping, ready to be used on records.
pub struct Extractor {
    wanted: Wanted,
    /// One for each of the mapping's `each`, or one.
    variants: Vec<Variant>,
    mapping: Mapping,
}

/// The mapping with `{each}` filled in.
struct Variant {
    name: String,
    response: Path,
    prompt: Vec<(String, Path)>,
    tail: String,
    rater: Option<Path>,
    labels: Vec<Option<Path>>,
}

/// What a record gave: samples, and what of it cannot be used.
#[derive(Debug, Default, PartialEq)]
pub struct Extracted {
    pub samples: Vec<Sample>,
    /// Each with the answer that it is about.
    pub defects: Vec<(String, Defect)>,
}

impl Extractor {
    /// Prepares a mapping that was checked.
    pub fn new(mapping: Mapping) -> Self {
        let (template, tail) = mapping.template().unwrap_or_default();
        let prompt: Vec<(String, Path)> = match &mapping.prompt {
            Some(path) => vec![(String::new(), path.clone())],
            None => template,
        };
        let names = if mapping.each.is_empty() { vec![String::new()] } else { mapping.each.clone() };
        let variants = names
            .into_iter()
            .map(|name| {
                let fill = |path: &Path| path.filled(EACH, &name);
                Variant {
                    response: fill(&mapping.response),
                    prompt: prompt.iter().map(|(before, path)| (before.clone(), fill(path))).collect(),
                    tail: tail.clone(),
                    rater: mapping.rater.as_ref().map(fill),
                    labels: mapping.objectives.iter().map(|o| o.label.as_ref().or(o.preferred_at.as_ref()).map(fill)).collect(),
                    name,
                }
            })
            .collect();
        Self { wanted: Wanted::of(&mapping.paths()), variants, mapping }
    }

    /// What of a record it reads.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The mapping.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The samples of a record.
    pub fn samples(&self, record: &Datum) -> Extracted {
        let mut out = Extracted::default();
        if !matches!(record, Datum::Object(_)) {
            let wrong = Defect::of("not a record", format!("is {}; a record is an object with entries", record.kind()));
            out.defects.push((String::new(), wrong));
            return out;
        }
        for variant in &self.variants {
            let fillings = variant.response.fillings(record);
            if fillings.is_empty() {
                out.defects.push((variant.name.clone(), Defect::at(&variant.response, "no response", "there is no such entry")));
            }
            for own in fillings {
                let stars = own.iter().map(Entry::to_string);
                let answer: Vec<String> =
                    (!variant.name.is_empty()).then(|| variant.name.clone()).into_iter().chain(stars).collect();
                let answer = answer.join("/");
                match self.sample(variant, &own, record, &answer) {
                    Ok(sample) => out.samples.push(sample),
                    Err(defect) => out.defects.push((answer, defect)),
                }
            }
        }
        self.same_prompts(&mut out);
        out
    }

    /// Two whole conversations of a record are compared: they must differ in the last turn alone.
    fn same_prompts(&self, out: &mut Extracted) {
        let compared = self.mapping.dialogue.is_some() && self.mapping.objectives.iter().any(|o| o.preferred.is_some());
        if compared && out.samples.windows(2).any(|w| w[0].prompt != w[1].prompt) {
            for sample in std::mem::take(&mut out.samples) {
                let wrong = Defect::of(
                    "prompts that differ",
                    "the conversations differ before their last turns, so they cannot be compared",
                );
                out.defects.push((sample.answer, wrong));
            }
        }
    }

    fn sample(&self, variant: &Variant, own: &[Entry], record: &Datum, answer: &str) -> Result<Sample, Defect> {
        let at = |defect: Defect| Defect { column: defect.column.or_else(|| Some(variant.response.to_string())), ..defect };
        let value = variant.response.one(record, own).unwrap_or(&Datum::Null);
        let (prompt, response) = match self.mapping.dialogue {
            Some(Dialogue::Transcript) => {
                let turns = dialogue::transcript(
                    &text(value, &variant.response, "no response")?,
                    &self.mapping.turns.clone().unwrap_or_default(),
                );
                dialogue::answered(turns).map_err(at)?
            }
            Some(Dialogue::Messages) => dialogue::answered(dialogue::messages(value).map_err(at)?).map_err(at)?,
            None => (self.prompt(variant, own, record)?, text(value, &variant.response, "no response")?.trim().to_string()),
        };
        if response.is_empty() {
            return Err(Defect::at(&variant.response, "no response", "is empty"));
        }
        if prompt.trim().is_empty() {
            return Err(Defect::of("no prompt", "the prompt is empty"));
        }
        let mut ratings = Vec::new();
        for (objective, (mapping, label)) in self.mapping.objectives.iter().zip(&variant.labels).enumerate() {
            for (rater, score) in self.scores(mapping, label.as_ref(), variant, own, record)? {
                ratings.push(Rating { objective, rater, score });
            }
        }
        Ok(Sample { prompt, response, ratings, answer: answer.into() })
    }

    fn prompt(&self, variant: &Variant, own: &[Entry], record: &Datum) -> Result<String, Defect> {
        let mut out = String::new();
        for (before, path) in &variant.prompt {
            out += before;
            let found = path.all(record, own);
            if let [(_, list @ Datum::List(_))] = found.as_slice() {
                out += &dialogue::prompt(dialogue::messages(list).map_err(|d| Defect::at(path, "no prompt", d.detail))?);
                continue;
            }
            let texts: Vec<String> = found.into_iter().map(|(_, v)| text(v, path, "no prompt")).collect::<Result<_, _>>()?;
            if texts.is_empty() {
                return Err(Defect::at(path, "no prompt", "there is no such entry"));
            }
            out += &texts.join(self.mapping.between());
        }
        out += &variant.tail;
        Ok(match (&self.mapping.turns, self.mapping.dialogue) {
            (Some(marks), None) => dialogue::prompt(dialogue::transcript(&out, marks)),
            _ => out.trim().to_string(),
        })
    }

    /// What raters said of an answer on one objective, each with the rater's name.
    fn scores(
        &self,
        mapping: &ObjectiveMapping,
        label: Option<&Path>,
        variant: &Variant,
        own: &[Entry],
        record: &Datum,
    ) -> Result<Vec<(String, f64)>, Defect> {
        if let Some(preferred) = &mapping.preferred {
            return Ok(vec![(self.rater(variant, own, record), f64::from(u8::from(*preferred == variant.name)))]);
        }
        let Some(path) = label else { return Ok(Vec::new()) };
        if mapping.preferred_at.is_some() {
            let Some(named) = path.one(record, own).filter(|v| !mapping.is_missing(v)) else { return Ok(Vec::new()) };
            let named = named.text().unwrap_or_default();
            if !self.mapping.each.contains(&named) {
                let allowed = self.mapping.each.join(" and ");
                return Err(Defect::at(path, "a label that is not allowed", format!("is {named:?}; allowed are {allowed}")));
            }
            return Ok(vec![(self.rater(variant, own, record), f64::from(u8::from(named == variant.name)))]);
        }
        let found = path.all(record, own);
        if mapping.count {
            let mut counted = 0;
            for (_, value) in &found {
                match value {
                    Datum::Bool(b) => counted += u32::from(*b),
                    Datum::Number(n) if *n == 0.0 || *n == 1.0 => counted += u32::from(*n == 1.0),
                    other => {
                        let detail = format!("is {}; entries that are counted are true or false", other.kind());
                        return Err(Defect::at(path, "a label that is not allowed", detail));
                    }
                }
            }
            if found.is_empty() {
                return Ok(Vec::new());
            }
            let score = mapping.score(&Datum::Number(f64::from(counted))).map_err(|d| at_path(path, d))?;
            return Ok(vec![(self.rater(variant, own, record), score)]);
        }
        let mut out = Vec::new();
        for (entry, value) in found {
            if mapping.is_missing(value) {
                continue;
            }
            let score = mapping.score(value).map_err(|d| at_path(path, d))?;
            let rater = match (&entry, &variant.rater) {
                (Some(entry), Some(names)) if names.has_all() => {
                    let name = names.all(record, own).into_iter().nth(entry.position).and_then(|(_, v)| v.text());
                    name.unwrap_or_else(|| entry.to_string())
                }
                (Some(entry), _) => entry.key.clone().unwrap_or_else(|| (entry.position + 1).to_string()),
                (None, _) => self.rater(variant, own, record),
            };
            out.push((rater, score));
        }
        Ok(out)
    }

    /// The rater of the whole record.
    fn rater(&self, variant: &Variant, own: &[Entry], record: &Datum) -> String {
        let path = variant.rater.as_ref().filter(|p| !p.has_all());
        path.and_then(|p| p.one(record, own)).and_then(Datum::text).unwrap_or_default()
    }
}

fn at_path(path: &Path, detail: String) -> Defect {
    Defect::at(path, "a label that is not allowed", detail)
}

/// A text.
fn text(value: &Datum, path: &Path, reason: &'static str) -> Result<String, Defect> {
    match value {
        Datum::Text(text) => Ok(text.clone()),
        Datum::Number(_) | Datum::Bool(_) => Ok(value.text().unwrap_or_default()),
        other => Err(Defect::at(path, reason, format!("is {}; it should be a text", other.kind()))),
    }
}

impl Plain {
    fn is(&self, value: &Datum) -> bool {
        match (self, value) {
            (Self::Bool(a), Datum::Bool(b)) => a == b,
            (Self::Bool(a), Datum::Text(b)) => b.eq_ignore_ascii_case(&a.to_string()),
            (Self::Number(a), value) => value.number() == Some(*a),
            (Self::Text(a), Datum::Text(b)) => a.trim() == b.trim(),
            (Self::Text(a), Datum::Number(b)) => a.trim().parse() == Ok(*b),
            _ => false,
        }
    }

    fn said(&self) -> String {
        match self {
            Self::Bool(b) => b.to_string(),
            Self::Number(n) => n.to_string(),
            Self::Text(text) => format!("{text:?}"),
        }
    }
}

impl ObjectiveMapping {
    fn is_missing(&self, value: &Datum) -> bool {
        matches!(value, Datum::Null)
            || matches!(value, Datum::Text(text) if text.trim().is_empty())
            || self.missing.iter().any(|m| m.is(value))
    }

    /// A label on the scale of classes.
    ///
    /// # Errors
    /// When there is no such label; the message says which there are.
    fn score(&self, value: &Datum) -> Result<f64, String> {
        let said = || match value {
            Datum::Text(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
            Datum::Number(n) => n.to_string(),
            other => other.kind().to_string(),
        };
        let raw = if let Some([low, high]) = self.range {
            let number = value.number().filter(|n| (low as f64..=high as f64).contains(n));
            number.map(|n| n - low as f64).ok_or_else(|| format!("is {}; allowed are numbers from {low} to {high}", said()))?
        } else if self.values.is_empty() {
            let number = value.number().ok_or_else(|| format!("is {}; allowed are numbers", said()))?;
            self.edges.iter().filter(|e| **e <= number).count() as f64
        } else {
            let known = || self.values.iter().map(Plain::said).collect::<Vec<_>>().join(", ");
            let at = self.values.iter().position(|v| v.is(value));
            at.ok_or_else(|| format!("is {}; allowed are {}", said(), known()))? as f64
        };
        Ok(if self.reverse { (self.class_count() - 1) as f64 - raw } else { raw })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extracted(mapping: &str, record: &str) -> Extracted {
        let extractor = Extractor::new(Mapping::parse(mapping).unwrap());
        let record = extractor.wanted().parse(record.as_bytes()).unwrap();
        extractor.samples(&record)
    }

    fn said(sample: &Sample) -> Vec<(usize, &str, f64)> {
        sample.ratings.iter().map(|r| (r.objective, r.rater.as_str(), r.score)).collect()
    }

    #[test]
    fn nested_answers_have_each_their_own_labels_and_raters() {
        let mapping = "prompt_template = \"Summarise:\\n{reviews.@}\"\njoin = \"\\n\"\nresponse = \"texts.*\"\n\
            [[objectives]]\nid = \"fluency\"\nlabel = \"marks.*.@\"\nrange = [1, 5]\n\
            [[objectives]]\nid = \"bad\"\nlabel = \"flags.*\"\nvalues = [false, true]\nreverse = true\n";
        let record =
            r#"{"reviews": ["Good.", "Fine."], "texts": ["A", "B"], "marks": [[1, 5], [2.5, null]], "flags": [true, false]}"#;
        let Extracted { samples, defects } = extracted(mapping, record);
        assert!(defects.is_empty());
        assert_eq!(samples[0].prompt, "Summarise:\nGood.\nFine.");
        assert_eq!(said(&samples[0]), [(0, "1", 0.0), (0, "2", 4.0), (1, "", 0.0)]);
        assert_eq!((samples[1].response.as_str(), samples[1].answer.as_str()), ("B", "1"));
        assert_eq!(said(&samples[1]), [(0, "1", 1.5), (1, "", 1.0)]);
    }

    #[test]
    fn pairs_become_two_samples() {
        let mapping = "response = \"{each}\"\neach = [\"chosen\", \"rejected\"]\ndialogue = \"transcript\"\nrater = \"who\"\n\
            [[objectives]]\nid = \"harmless\"\npreferred = \"chosen\"\n";
        let record = r#"{"chosen": "\n\nHuman: Hi\n\nAssistant: A", "rejected": "\n\nHuman: Hi\n\nAssistant: B", "who": 7}"#;
        let got = extracted(mapping, record);
        assert_eq!(
            got.samples.iter().map(|s| (s.response.as_str(), s.prompt.as_str(), s.ratings[0].score)).collect::<Vec<_>>(),
            [("A", "Hi", 1.0), ("B", "Hi", 0.0)]
        );
        assert_eq!(got.samples[0].ratings[0].rater, "7");
        let got = extracted(mapping, &record.replace("Human: Hi\\n\\nAssistant: B", "Human: Ho\\n\\nAssistant: B"));
        assert_eq!((got.samples.len(), got.defects.len(), got.defects[0].1.reason), (0, 2, "prompts that differ"));

        let mapping = "prompt = \"p\"\nresponse = \"r_{each}\"\neach = [\"0\", \"1\"]\n\
            [[objectives]]\nid = \"better\"\npreferred_at = \"best\"\n\
            [[objectives]]\nid = \"safe\"\nlabel = \"severity_{each}\"\nrange = [0, 3]\nreverse = true\n";
        let got = extracted(mapping, r#"{"p": "Q", "r_0": "A", "r_1": "B", "best": 1, "severity_0": 3, "severity_1": 0}"#);
        assert_eq!(
            got.samples.iter().map(said).collect::<Vec<_>>(),
            [[(0, "", 0.0), (1, "", 0.0)], [(0, "", 1.0), (1, "", 3.0)]]
        );
        let got = extracted(mapping, r#"{"p": "Q", "r_0": "A", "r_1": "B", "best": 2}"#);
        assert!(got.defects[0].1.to_string().contains("best: is \"2\"; allowed are 0 and 1"), "{:?}", got.defects);
    }

    #[test]
    fn labels_that_are_not_allowed_name_column_and_what_is() {
        let mapping = "prompt = \"p\"\nresponse = \"r\"\n\
            [[objectives]]\nid = \"a\"\nlabel = \"a\"\nrange = [1, 5]\nmissing = [\"N/A\", -1]\n\
            [[objectives]]\nid = \"b\"\nlabel = \"b.@\"\ncount = true\nedges = [1.0, 2.0]\nreverse = true\n\
            [[objectives]]\nid = \"c\"\nlabel = \"c\"\nvalues = [\"no\", \"yes\"]\n";
        let of = |rest: &str| extracted(mapping, &format!("{{\"p\": \"Q\", \"r\": \"A\", {rest}}}"));
        let good = of(r#""a": "4", "b": {"x, y": true, "z": false}, "c": "yes""#);
        assert_eq!(said(&good.samples[0]), [(0, "", 3.0), (1, "", 1.0), (2, "", 1.0)]);
        assert!(said(&of(r#""a": "N/A", "b": {}"#).samples[0]).is_empty());
        assert!(said(&of(r#""a": -1, "c": " ""#).samples[0]).is_empty());
        for (rest, words) in [
            (r#""a": 9"#, "a: is 9; allowed are numbers from 1 to 5"),
            (r#""a": "good""#, "a: is \"good\"; allowed are numbers from 1 to 5"),
            (r#""a": [1]"#, "a: is a list; allowed are numbers"),
            (r#""b": {"x": 3}"#, "b.@: is a number; entries that are counted are true or false"),
            (r#""c": "maybe""#, "c: is \"maybe\"; allowed are \"no\", \"yes\""),
        ] {
            let got = of(rest);
            assert!(got.samples.is_empty() && got.defects[0].1.to_string().contains(words), "{rest}: {got:?}");
        }
        for (record, reason) in [
            (r#"{"r": "A"}"#, "no prompt"),
            (r#"{"p": "Q"}"#, "no response"),
            (r#"{"p": "Q", "r": null}"#, "no response"),
            (r#"{"p": " ", "r": "A"}"#, "no prompt"),
            (r#"{"p": {}, "r": "A"}"#, "no prompt"),
            ("[1]", "not a record"),
        ] {
            assert_eq!(extracted(mapping, record).defects[0].1.reason, reason, "{record}");
        }
    }
}
