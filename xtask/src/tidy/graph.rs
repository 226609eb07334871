//! Which module uses which, and circles among them (Tarjan 1972).

use super::sources::Krate;
use std::collections::{BTreeMap, BTreeSet};

/// Modules of a crate that use each other in a circle, each circle by its modules' paths. That a folder's pieces use what its own
/// file holds, while that file puts the pieces together, is no circle; everything else is.
pub fn circles(krate: &Krate) -> Vec<Vec<String>> {
    let name = |module: &[String]| if module.is_empty() { "crate".into() } else { format!("crate::{}", module.join("::")) };
    let modules: BTreeSet<String> = krate.sources.iter().map(|s| name(&s.module)).collect();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in &krate.sources {
        let own = name(&source.module);
        for (path, _) in &source.paths {
            // A path may begin with a module of the own folder.
            let first = path.split("::").next().unwrap_or_default();
            let path = if modules.contains(&format!("{own}::{first}")) { format!("{own}::{path}") } else { path.clone() };
            // The module of a path is its longest beginning that is one.
            let mut parts: Vec<&str> = path.split("::").collect();
            while !parts.is_empty() && !modules.contains(&parts.join("::")) {
                parts.pop();
            }
            let used = parts.join("::");
            // The pieces of a room may use what its own file holds, which puts them together.
            let holds = own.starts_with(&format!("{used}::"));
            if !used.is_empty() && used != own && !holds {
                uses.entry(own.clone()).or_default().insert(used);
            }
        }
    }
    components(&modules, &uses).into_iter().filter(|c| c.len() > 1).collect()
}

/// Strongly connected components.
fn components(modules: &BTreeSet<String>, uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let mut search = Search { uses, index: BTreeMap::new(), low: BTreeMap::new(), stack: Vec::new(), found: Vec::new() };
    for module in modules {
        if !search.index.contains_key(module) {
            search.visit(module);
        }
    }
    search.found
}

struct Search<'a> {
    uses: &'a BTreeMap<String, BTreeSet<String>>,
    index: BTreeMap<String, usize>,
    low: BTreeMap<String, usize>,
    stack: Vec<String>,
    found: Vec<Vec<String>>,
}

impl Search<'_> {
    fn visit(&mut self, module: &String) {
        let n = self.index.len();
        self.index.insert(module.clone(), n);
        let mut low = n;
        self.stack.push(module.clone());
        for next in self.uses.get(module).into_iter().flatten() {
            if !self.index.contains_key(next) {
                self.visit(next);
                low = low.min(self.low[next]);
            } else if self.stack.contains(next) {
                low = low.min(self.index[next]);
            }
        }
        self.low.insert(module.clone(), low);
        if low == n {
            let at = self.stack.iter().position(|m| m == module).expect("it is on the stack");
            self.found.push(self.stack.split_off(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_found_and_a_tree_has_none() {
        let modules: BTreeSet<String> = ["a", "b", "c", "d"].map(String::from).into();
        let uses = |pairs: &[(&str, &str)]| {
            let mut out: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for (a, b) in pairs {
                out.entry(a.to_string()).or_default().insert(b.to_string());
            }
            out
        };
        let circles = |pairs: &[(&str, &str)]| {
            let mut all: Vec<Vec<String>> = components(&modules, &uses(pairs)).into_iter().filter(|c| c.len() > 1).collect();
            all.iter_mut().for_each(|c| c.sort());
            all
        };
        assert!(circles(&[("a", "b"), ("b", "c"), ("a", "c"), ("d", "a")]).is_empty());
        assert_eq!(circles(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]), [["a", "b", "c"]]);
        assert_eq!(circles(&[("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")]).len(), 2);
    }
}
