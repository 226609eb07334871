//! Models and data sets from a hub, by their id: the only place in the lab that may use the network, and only for a command that a person
//! typed. Files are kept in the cache that other software of the hub uses, too (`HF_HOME`); `HF_ENDPOINT` names another hub and
//! `HF_TOKEN` who asks.

use crate::failure::Failure;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Small files that a folder of a model may have, beside its weights.
const BESIDE: [&str; 7] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "README.md",
    "LICENSE",
];
/// How often a broken connection is taken up again.
const RETRIES: usize = 3;

/// A model on a hub, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    /// `owner/name`.
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// One GGUF file of it, instead of the folder.
    pub file: Option<String>,
}

/// What was fetched.
#[derive(Debug)]
pub struct Fetched {
    /// The folder or the GGUF file, in the hub's cache.
    pub path: PathBuf,
    /// The id with the commit that it was fetched at, `owner/name@commit`.
    pub source: String,
    /// SHA-256 by file name, of the files of which the hub tells it.
    pub checksums: BTreeMap<String, String>,
}

/// What the hub says of a repository.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    #[serde(rename = "rfilename")]
    name: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
}

impl HubId {
    /// `text` as an id, if it looks like one: two names with one stroke between them, and not like a path.
    pub fn parse(text: &str, revision: Option<&str>, file: Option<&str>) -> Option<Self> {
        let name = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && part.len() <= 96 && !part.starts_with('.') && part.chars().all(allowed)
        };
        let (owner, model) = text.split_once('/')?;
        let known = || Self { id: text.into(), revision: revision.unwrap_or("main").into(), file: file.map(String::from) };
        (name(owner) && name(model)).then(known)
    }

    /// Fetches what is not in the cache yet, at one commit. `say` is told what is about to be fetched; bars show how far it is.
    ///
    /// # Errors
    /// When the hub cannot be reached or refuses, the id or revision is unknown, or there is no model in it that the lab reads.
    pub fn fetch(&self, say: impl Fn(&str)) -> Result<Fetched, Failure> {
        let (listing, api) = self.open(RepoType::Model)?;
        let wanted = self.wanted(&listing)?;
        let paths = self.get(&listing, &api, RepoType::Model, &wanted, say)?;
        let last = paths.into_iter().next_back().unwrap_or_default();
        let path = if self.is_gguf(&wanted) { last } else { last.parent().map(PathBuf::from).unwrap_or_default() };
        let checksums = wanted.iter().filter_map(|s| Some((s.name.clone(), s.lfs.as_ref()?.sha256.clone()?))).collect();
        Ok(Fetched { path, source: format!("{}@{}", self.id, listing.sha), checksums })
    }

    /// Fetches files of a data set: those whose names are like one of `patterns`, in which `*` stands for any characters.
    ///
    /// # Errors
    /// As [`Self::fetch`]; or no file is like a pattern.
    pub fn fetch_data(&self, patterns: &[String], say: impl Fn(&str)) -> Result<Vec<PathBuf>, Failure> {
        let (listing, api) = self.open(RepoType::Dataset)?;
        // Nothing of a hub's answer becomes a path elsewhere.
        let safe =
            |s: &&Sibling| s.name.split('/').all(|part| !part.is_empty() && !part.starts_with('.')) && !s.name.contains('\\');
        let all: Vec<&Sibling> = listing.siblings.iter().filter(safe).collect();
        let mut wanted: Vec<&Sibling> = Vec::new();
        for pattern in patterns {
            let own: Vec<&Sibling> = all.iter().copied().filter(|s| is_like(&s.name, pattern)).collect();
            if own.is_empty() {
                let some: Vec<&str> = all.iter().map(|s| s.name.as_str()).filter(|n| !n.ends_with(".md")).take(30).collect();
                let has = some.join(", ");
                return Err(Failure::field("file", format!("{} has no file like {pattern}; it has {has}", self.id)));
            }
            wanted.extend(own.into_iter().filter(|s| !wanted.iter().any(|w| w.name == s.name)).collect::<Vec<_>>());
        }
        self.get(&listing, &api, RepoType::Dataset, &wanted, say)
    }

    fn open(&self, kind: RepoType) -> Result<(Listing, Api), Failure> {
        let api = ApiBuilder::from_env().with_retries(RETRIES);
        let api = match std::env::var("HF_TOKEN").ok().filter(|t| !t.is_empty()) {
            Some(token) => api.with_token(Some(token)),
            None => api,
        };
        let api = api.build().map_err(|e| self.refused("", e))?;
        let listing = self.listing(&api.repo(Repo::with_revision(self.id.clone(), kind, self.revision.clone())))?;
        Ok((listing, api))
    }

    /// Paths of files in the cache, where those that are not there yet are fetched.
    fn get(
        &self,
        listing: &Listing,
        api: &Api,
        kind: RepoType,
        wanted: &[&Sibling],
        say: impl Fn(&str),
    ) -> Result<Vec<PathBuf>, Failure> {
        let bytes: u64 = wanted.iter().filter_map(|s| s.size).sum();
        say(&format!("{} at {}: {} files, {:.1} MB", self.id, &listing.sha[..12], wanted.len(), bytes as f64 / 1e6));
        // The commit, not the branch: what is fetched belongs together even if the branch moves on meanwhile.
        let pinned = api.repo(Repo::with_revision(self.id.clone(), kind, listing.sha.clone()));
        wanted.iter().map(|file| pinned.get(&file.name).map_err(|e| self.refused(&file.name, e))).collect()
    }

    fn is_gguf(&self, wanted: &[&Sibling]) -> bool {
        wanted.last().is_some_and(|s| s.name.ends_with(".gguf"))
    }

    fn listing(&self, repo: &ApiRepo) -> Result<Listing, Failure> {
        let asked = repo.info_request().query("blobs", "true").call();
        let mut answer = asked.map_err(|e| self.refused("", ApiError::RequestError(Box::new(e))))?;
        let read = answer.body_mut().read_json::<Listing>();
        let listing = read.map_err(|e| Failure::Failed(format!("{}: the hub's answer cannot be read: {e}", self.id)))?;
        let good = listing.sha.len() >= 12 && listing.sha.chars().all(|c| c.is_ascii_hexdigit());
        good.then_some(()).ok_or_else(|| {
            Failure::Failed(format!("{}: the hub's answer names the commit \"{}\", which is none", self.id, listing.sha))
        })?;
        Ok(listing)
    }

    /// The files to fetch: those of a folder in safetensors, or one GGUF file.
    fn wanted<'a>(&self, listing: &'a Listing) -> Result<Vec<&'a Sibling>, Failure> {
        // Only files at the top, whose names are plain: nothing of a hub's answer becomes a path elsewhere.
        let plain = |s: &&Sibling| !s.name.contains(['/', '\\']) && !s.name.starts_with('.');
        let all: Vec<&Sibling> = listing.siblings.iter().filter(plain).collect();
        let ggufs: Vec<&Sibling> = all.iter().copied().filter(|s| s.name.ends_with(".gguf")).collect();
        let names = |of: &[&Sibling]| of.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(file) = &self.file {
            let found = ggufs.iter().copied().find(|s| &s.name == file);
            let missing = || match ggufs.is_empty() {
                true => Failure::field("file", format!("{} has no GGUF file", self.id)),
                false => Failure::field("file", format!("{} has no {file}; it has {}", self.id, names(&ggufs))),
            };
            return found.map(|s| vec![s]).ok_or_else(missing);
        }
        let weights: Vec<&Sibling> = all.iter().copied().filter(|s| s.name.ends_with(".safetensors")).collect();
        let has_config = all.iter().any(|s| s.name == "config.json");
        match (has_config && !weights.is_empty(), ggufs.as_slice()) {
            (true, _) => {
                let beside = all.iter().copied().filter(|s| BESIDE.contains(&s.name.as_str()));
                Ok(beside.chain(weights).collect())
            }
            (false, [one]) => Ok(vec![one]),
            (false, []) => {
                let has = if all.is_empty() { "nothing".into() } else { names(&all) };
                Err(Failure::field(
                    "model",
                    format!("{} has neither config.json with safetensors nor a GGUF file; at its top is {has}", self.id),
                ))
            }
            (false, several) => Err(Failure::field(
                "file",
                format!("{} has several GGUF files, choose one with --file: {}", self.id, names(several)),
            )),
        }
    }

    /// What a failed request means, in words.
    fn refused(&self, file: &str, error: ApiError) -> Failure {
        let Self { id, revision, .. } = self;
        let of = if file.is_empty() { String::new() } else { format!("{file} of ") };
        let status = match &error {
            ApiError::RequestError(e) => match **e {
                ureq::Error::StatusCode(code) => Some(code),
                _ => None,
            },
            _ => None,
        };
        match status {
            Some(401 | 403) => Failure::field(
                "model",
                format!(
                    "the hub does not show {of}{id}; there is no such model, or it wants a token in HF_TOKEN of somebody who has \
                     accepted its terms"
                ),
            ),
            Some(404) => {
                Failure::field("model", format!("the hub has no {of}{id} at revision {revision}, nor is there such a path here"))
            }
            _ => Failure::Failed(format!(
                "fetching {of}{id}: {error}; what was fetched is kept, the same command goes on from there"
            )),
        }
    }
}

/// Whether `name` is like `pattern`, in which `*` stands for any characters.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_two_names_and_no_path() {
        let parse = |text: &str| HubId::parse(text, None, None).map(|id| id.id);
        assert_eq!(parse("owner/Model-1.5_x").as_deref(), Some("owner/Model-1.5_x"));
        for path in ["model", "./model", "../model", "/a/b", "a/b/c", "a/", "/b", "a/.b", "~/b", "a b/c", "a/b\\c", ""] {
            assert_eq!(parse(path), None, "{path}");
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        for (name, pattern, like) in [
            ("a.jsonl", "*.jsonl", true),
            ("data/x/train.jsonl", "data/*/train.jsonl", true),
            ("data/train.jsonl", "data/*/train.jsonl", false),
            ("a.jsonl.gz", "*.jsonl", false),
            ("a.jsonl", "a.jsonl", true),
            ("ba.jsonl", "a.jsonl", false),
            ("ab", "ab*b", false),
        ] {
            assert_eq!(is_like(name, pattern), like, "{name} {pattern}");
        }
    }

    #[test]
    fn of_a_repository_one_model_is_taken_and_nothing_outside_its_top() {
        let listing = |names: &[&str]| Listing {
            sha: "0123456789abcdef".into(),
            siblings: names.iter().map(|n| Sibling { name: (*n).into(), size: None, lfs: None }).collect(),
        };
        let wanted = |names: &[&str], file: Option<&str>| {
            let listing = listing(names);
            let id = HubId { id: "a/b".into(), revision: "main".into(), file: file.map(String::from) };
            let got = id.wanted(&listing).map(|all| all.iter().map(|s| s.name.clone()).collect::<Vec<_>>());
            got.map_err(|e| e.to_string())
        };
        let folder = [
            "../config.json",
            "config.json",
            "onnx/model.safetensors",
            "model.safetensors",
            "run.py",
            ".gitattributes",
            "a.gguf",
        ];
        assert_eq!(wanted(&folder, None).unwrap(), ["config.json", "model.safetensors"]);
        assert_eq!(wanted(&folder, Some("a.gguf")).unwrap(), ["a.gguf"]);
        assert_eq!(wanted(&["README.md", "a.gguf"], None).unwrap(), ["a.gguf"]);
        assert!(wanted(&["a.gguf", "b.gguf"], None).unwrap_err().contains("a.gguf, b.gguf"));
        assert!(wanted(&["a.gguf", "b.gguf"], Some("c.gguf")).unwrap_err().contains("a.gguf, b.gguf"));
        assert!(wanted(&["config.json", "pytorch_model.bin"], None).unwrap_err().contains("pytorch_model.bin"));
    }
}
