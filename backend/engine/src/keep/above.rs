//! Files that can be read, above which what is written stays in memory: how a rank that is not the first sees the lab, and a run of which
//! nothing is kept.

use super::files::{Append, Files, Memory};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Reads what is below, as far as nothing was written above it.
pub struct Above {
    below: Arc<dyn Files>,
    own: Memory,
    /// What was removed above and may still be below.
    gone: Mutex<BTreeSet<String>>,
    /// The folder of which this is so; everything else is below. Empty: everything is above.
    folder: &'static str,
}

impl Above {
    /// Nothing was written yet.
    pub fn new(below: Arc<dyn Files>) -> Self {
        Self::of("", below)
    }

    /// What is written to `folder` stays in memory, everything else goes below.
    pub fn of(folder: &'static str, below: Arc<dyn Files>) -> Self {
        Self { below, own: Memory::default(), gone: Mutex::default(), folder }
    }

    fn is_own(&self, path: &str) -> bool {
        self.folder.is_empty() || path.strip_prefix(self.folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn gone(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for Above {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        match self.own.read(path)? {
            None if !self.gone().contains(path) => self.below.read(path),
            own => Ok(own),
        }
    }

    fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        if self.is_own(path) { self.own.write(path, bytes) } else { self.below.write(path, bytes) }
    }

    fn append(&self, path: &str) -> io::Result<Box<dyn Append>> {
        if !self.is_own(path) {
            return self.below.append(path);
        }
        if let Some(bytes) = self.read(path)? {
            self.own.write(path, &bytes)?;
        }
        self.own.append(path)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        if !self.is_own(path) {
            return self.below.remove(path);
        }
        self.gone().insert(path.into());
        self.own.remove(path)
    }

    fn settle(&self, path: &str) -> io::Result<()> {
        if self.is_own(path) { Ok(()) } else { self.below.settle(path) }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let mut names = self.below.list(folder)?;
        names.retain(|name| !self.gone().contains(&format!("{folder}/{name}")));
        names.extend(self.own.list(folder)?);
        names.sort();
        names.dedup();
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
        let above = Above::of("runs", below.clone());
        for path in ["runs/a/x", "runsome", "cache/z"] {
            above.write(path, b"new").unwrap();
        }
        above.remove("runs/a/y").unwrap();
        above.remove("cache/z").unwrap();
        let under = |path| text(below.as_ref(), path);
        assert_eq!((under("runs/a/x").as_deref(), under("runsome").as_deref()), (Some("one"), Some("new")));
        assert_eq!((under("runs/a/y").as_deref(), under("cache/z")), (Some("line\ntorn"), None));
        assert_eq!(text(&above, "runs/a/x").as_deref(), Some("new"));
    }
}
