//! Mappings that the lab brings: those of known data sets.

/// Name and text of every mapping, by name.
pub const KNOWN: [(&str, &str); 8] = [
    ("beavertails", include_str!("../../../static/mappings/beavertails.toml")),
    ("helpsteer2", include_str!("../../../static/mappings/helpsteer2.toml")),
    ("hh-harmless", include_str!("../../../static/mappings/hh-harmless.toml")),
    ("hh-helpful", include_str!("../../../static/mappings/hh-helpful.toml")),
    ("pku-saferlhf", include_str!("../../../static/mappings/pku-saferlhf.toml")),
    ("summeval-op", include_str!("../../../static/mappings/summeval-op.toml")),
    ("summeval-op-raters", include_str!("../../../static/mappings/summeval-op-raters.toml")),
    ("ultrafeedback", include_str!("../../../static/mappings/ultrafeedback.toml")),
];

/// The mapping called `name`, as it is written.
pub fn find(name: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mapping;

    #[test]
    fn every_mapping_is_one() {
        for (name, text) in KNOWN {
            let mapping = Mapping::parse(text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(!mapping.title.is_empty() && !mapping.licence.is_empty(), "{name}");
        }
        assert!(find("hh-helpful").is_some() && find("other").is_none());
    }
}
