//! The sources of a crate: which paths each file names, tests left out.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use syn::visit::Visit;

/// A crate of the workspace.
pub struct Krate {
    pub name: String,
    pub folder: PathBuf,
    pub sources: Vec<Source>,
}

/// One file.
pub struct Source {
    /// Its path within the workspace.
    pub shown: String,
    /// Its module's path within the crate: empty for the crate's root.
    pub module: Vec<String>,
    pub lines: usize,
    pub begins_with_comment: bool,
    /// Paths that it names, and where; `use` trees are spread out.
    pub paths: Vec<(String, usize)>,
}

impl Krate {
    /// Reads all of `src`.
    ///
    /// # Errors
    /// When a file cannot be read or is no Rust.
    pub fn read(name: &str, folder: &Path) -> Result<Self> {
        let src = folder.join("src");
        let mut files = Vec::new();
        collect(&src, &mut files)?;
        files.sort();
        let sources = files.iter().map(|file| Source::read(file, &src)).collect::<Result<_>>()?;
        Ok(Self { name: name.into(), folder: folder.into(), sources })
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

impl Source {
    fn read(file: &Path, src: &Path) -> Result<Self> {
        let shown = super::shown(file);
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {shown}"))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("parsing {shown}"))?;
        let mut module: Vec<String> =
            file.strip_prefix(src)?.with_extension("").iter().map(|p| p.to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|m| ["mod", "lib", "main"].contains(&m.as_str())) {
            module.pop();
        }
        let mut names = Names { module: &module, paths: Vec::new() };
        names.visit_file(&parsed);
        let paths = names.paths;
        Ok(Self { shown, module, lines: text.lines().count(), begins_with_comment: text.starts_with("//!"), paths })
    }
}

/// Collects paths, `crate`, `self` and `super` made absolute.
struct Names<'a> {
    module: &'a [String],
    paths: Vec<(String, usize)>,
}

impl Names<'_> {
    fn add(&mut self, segments: &[String], line: usize) {
        let mut absolute: Vec<String> = Vec::new();
        for (n, segment) in segments.iter().enumerate() {
            match segment.as_str() {
                "crate" => absolute = vec!["crate".into()],
                "self" if n == 0 => absolute = std::iter::once("crate".into()).chain(self.module.iter().cloned()).collect(),
                "super" => {
                    if n == 0 {
                        absolute = std::iter::once("crate".into()).chain(self.module.iter().cloned()).collect();
                    }
                    absolute.pop();
                }
                other => absolute.push(other.into()),
            }
        }
        self.paths.push((absolute.join("::"), line));
    }

    fn tree(&mut self, tree: &syn::UseTree, before: &mut Vec<String>) {
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.tree(&path.tree, before);
                before.pop();
            }
            syn::UseTree::Name(name) => self.leaf(&name.ident, before),
            syn::UseTree::Rename(name) => self.leaf(&name.ident, before),
            syn::UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                self.add(before, line);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(tree, before)),
        }
    }

    fn leaf(&mut self, ident: &syn::Ident, before: &[String]) {
        let own = (ident != "self").then(|| ident.to_string());
        let all: Vec<String> = before.iter().cloned().chain(own).collect();
        self.add(&all, ident.span().start().line);
    }
}

/// Whether an item is there for tests alone.
fn for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| a.path().is_ident("cfg") && a.parse_args::<syn::Ident>().is_ok_and(|i| i == "test"))
}

impl<'a> Visit<'a> for Names<'_> {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if !for_tests(&item.attrs) {
            self.tree(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if let Some(first) = path.segments.first()
            && path.segments.len() > 1
        {
            let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
            self.add(&segments, first.ident.span().start().line);
        }
        syn::visit::visit_path(self, path);
    }
}
