//! Values of records, whatever format they come from.

/// A value of a record. Entries of an object keep the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Datum {
    #[default]
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Datum>),
    Object(Vec<(String, Datum)>),
}

impl Datum {
    /// The entry of an object.
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(all) = self else { return None };
        all.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// As a text: of a number or a truth value, too.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Number(n) => Some(n.to_string()),
            Self::Bool(b) => Some(b.to_string()),
            _ => None,
        }
    }

    /// As a number: of a text that is one, too.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(*n),
            Self::Text(text) => text.trim().parse().ok().filter(|n: &f64| n.is_finite()),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing (null)",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_numbers_where_they_are_written_so() {
        assert_eq!((Datum::Text(" 4 ".into()).number(), Datum::Text("N/A".into()).number()), (Some(4.0), None));
        assert_eq!((Datum::Text("inf".into()).number(), Datum::Number(4.0).text()), (None, Some("4".into())));
    }
}
