//! Files that can be read, above which everything that is written stays in memory: how a rank that is not the first sees the lab.

use super::files::{Append, Files};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What was written over a file, or `None` where it was removed.
type Own = Arc<Mutex<BTreeMap<String, Option<Vec<u8>>>>>;

/// Reads what is below, as far as nothing was written above it.
pub struct Above {
    below: Arc<dyn Files>,
    own: Own,
}

impl Above {
    /// Nothing was written yet.
    pub fn new(below: Arc<dyn Files>) -> Self {
        Self { below, own: Own::default() }
    }

    fn put(&self, path: &str, bytes: Option<Vec<u8>>) {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_string(), bytes);
    }
}

/// A file in memory to which lines are added.
struct Appending {
    own: Own,
    path: String,
}

impl Append for Appending {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.entry(self.path.clone()).or_default().get_or_insert_default().extend_from_slice(bytes);
        Ok(())
    }
}

impl Files for Above {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        own.map_or_else(|| self.below.read(path), Ok)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.put(path, Some(bytes.to_vec()));
        Ok(())
    }

    fn append(&self, path: &str) -> io::Result<Box<dyn Append>> {
        let mut bytes = self.read(path)?.unwrap_or_default();
        bytes.truncate(bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1));
        self.put(path, Some(bytes));
        Ok(Box::new(Appending { own: self.own.clone(), path: path.to_string() }))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.put(path, None);
        Ok(())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = self.below.list(folder)?;
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let here = own.iter().filter_map(|(path, bytes)| Some((path.strip_prefix(folder)?.strip_prefix('/')?, bytes.is_some())));
        for (name, there) in here.filter(|(name, _)| !name.contains('/')) {
            names.retain(|n| n != name);
            if there {
                names.push(name.to_string());
            }
        }
        names.sort();
        Ok(names)
    }

    fn describe(&self, path: &str) -> String {
        self.below.describe(path)
    }

    fn folder(&self) -> Option<&Path> {
        self.below.folder()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::files::Memory;

    #[test]
    fn what_is_below_is_read_and_never_changed() {
        let below = Arc::new(Memory::default());
        for (path, text) in [("runs/a/x", "one"), ("runs/a/y", "line\ntorn"), ("cache/z", "three")] {
            below.write(path, text.as_bytes()).unwrap();
        }
        let above = Above::new(below.clone());
        above.write("runs/a/x", b"new").unwrap();
        above.append("runs/a/y").unwrap().add(b"next\n").unwrap();
        above.append("runs/a/w").unwrap().add(b"first\n").unwrap();
        above.remove("cache/z").unwrap();
        above.rename("runs/a/x", "runs/a/v").unwrap();
        let text = |files: &dyn Files, path: &str| files.read(path).unwrap().map(|b| String::from_utf8(b).unwrap());
        let read = |path| text(&above, path);
        assert_eq!((read("runs/a/v").as_deref(), read("runs/a/x"), read("cache/z")), (Some("new"), None, None));
        assert_eq!((read("runs/a/y").as_deref(), read("runs/a/w").as_deref()), (Some("line\nnext\n"), Some("first\n")));
        assert_eq!(above.list("runs/a").unwrap(), ["v", "w", "y"]);
        assert_eq!(text(below.as_ref(), "runs/a/x").as_deref(), Some("one"));
        assert_eq!(text(below.as_ref(), "runs/a/y").as_deref(), Some("line\ntorn"));
        assert_eq!(below.list("runs/a").unwrap().len(), 2);
    }
}
