//! Files of ratings, and a data folder to import them into.

use crate::{Process, text};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// A command on a data folder, and its one JSON document or what it complained about.
///
/// # Panics
/// When it ends otherwise.
///
/// # Errors
/// When the input was bad.
pub fn lab(data: &Path, args: &[&str]) -> Result<Value, String> {
    let output = Process::lab(&[args, &["--data", text(data), "--json"]].concat()).wait();
    match output.code {
        Some(0) => Ok(serde_json::from_str(&output.stdout).expect("one JSON document")),
        Some(2) => Err(output.stderr),
        other => panic!("{args:?} ended with {other:?}: {}", output.stderr),
    }
}

/// A folder with a data folder and files to import. It goes with its test.
#[derive(Debug)]
pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    /// An empty one.
    ///
    /// # Panics
    /// When there is no place for it.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Writes a file; returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        text(&path).into()
    }

    /// `moslim-lab import`.
    ///
    /// # Errors
    /// When the input was bad.
    pub fn import(&self, args: &[&str]) -> Result<Value, String> {
        lab(&self.data(), &[&["import"], args].concat())
    }

    /// Files and folders of imported tasks.
    ///
    /// # Panics
    /// When they cannot be listed.
    pub fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data().join("tasks")).into_iter().flatten();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// A mapping for [`record`]s.
pub const FLAT: &str = "prompt = \"question\"\nresponse = \"answer\"\n[[objectives]]\nid = \"use\"\nlabel = \"use\"\nrange = [1, 5]\n\
    [[objectives]]\nid = \"tone\"\nlabel = \"tone\"\nvalues = [\"rude\", \"plain\", \"kind\"]\nmissing = [\"?\"]\n";

/// A record of the flat format.
pub fn record(n: usize) -> Value {
    let tone = ["rude", "plain", "kind", "?"][n % 4];
    json!({"question": format!("How do I make tea, way {}?", n / 2), "answer": format!("Boil water, {n} times."), "use": n % 5 + 1, "tone": tone})
}

/// JSON Lines.
pub fn lines(records: impl IntoIterator<Item = Value>) -> String {
    records.into_iter().map(|r| format!("{r}\n")).collect()
}
