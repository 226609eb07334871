//! Text in a page that is made, between two marks.

/// `page` with `text` between `begin` and `end`, each on a line of its own; `None` where it has them not.
pub fn between(page: &str, [begin, end]: [&str; 2], text: &str) -> Option<String> {
    let (head, rest) = page.split_once(begin)?;
    let (_, tail) = rest.split_once(end)?;
    Some(format!("{head}{begin}\n{}\n{end}{tail}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_between_its_marks() {
        let marks = ["<!-- a -->", "<!-- z -->"];
        let page = "# A\n\n<!-- a -->\nold\n<!-- z -->\nend\n";
        let new = between(page, marks, "\nnew\n").unwrap();
        assert_eq!(new, "# A\n\n<!-- a -->\nnew\n<!-- z -->\nend\n");
        assert_eq!(between(&new, marks, "new").unwrap(), new);
        assert!(between("# A", marks, "new").is_none() && between("<!-- a -->", marks, "new").is_none());
    }
}
