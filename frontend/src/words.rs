//! The second language. Texts stand in the code in English; what they are in Chinese is in `static/zh.json`, in one place, by their English.
//!
//! A text that is not there stays English, so that a page can be translated after the other. The dictionary is read before the page is
//! shown, and another choice loads the page anew: no text has to follow it.

use leptos::prelude::{document, window};
use std::cell::RefCell;
use std::collections::HashMap;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::Response;

/// Under this the browser keeps the choice.
const STORAGE_KEY: &str = "moslim-language";
/// The language that is not English, as browsers and addresses call it.
const CHINESE: &str = "zh";

thread_local! {
    /// What is said instead of the English; empty for English.
    static WORDS: RefCell<HashMap<String, &'static str>> = RefCell::default();
}

/// A text in the reader's language.
pub fn t(english: &'static str) -> &'static str {
    WORDS.with_borrow(|words| words.get(english).copied().unwrap_or(english))
}

/// A text in the reader's language with values in the places of `{0}`, `{1}` and so on, which may stand in another order there.
pub fn said(english: &'static str, values: &[&str]) -> String {
    let mut out = t(english).to_string();
    for (n, value) in values.iter().enumerate() {
        out = out.replace(&format!("{{{n}}}"), value);
    }
    out
}

/// A text of `moslim-shared` in the reader's language: the name of a stage, of a grader, of a setting.
pub fn translated(english: &str) -> String {
    WORDS.with_borrow(|words| words.get(english).copied().unwrap_or(english).to_string())
}

/// Whether the page is in Chinese.
pub fn is_chinese() -> bool {
    WORDS.with_borrow(|words| !words.is_empty())
}

/// Whether somebody chose Chinese, by the address or before.
pub fn wanted() -> bool {
    let asked = window().location().search().unwrap_or_default();
    let kept = || window().local_storage().ok().flatten().and_then(|s| s.get_item(STORAGE_KEY).ok().flatten());
    match asked.split(['?', '&']).find_map(|pair| pair.strip_prefix("lang=")) {
        Some(language) => language == CHINESE,
        None => kept().as_deref() == Some(CHINESE),
    }
}

/// Reads the dictionary at an address; where that fails, the page is in English.
pub async fn load(address: &str) {
    let read = async || -> Option<HashMap<String, String>> {
        let response: Response = JsFuture::from(window().fetch_with_str(address)).await.ok()?.dyn_into().ok()?;
        let text = JsFuture::from(response.text().ok()?).await.ok()?.as_string()?;
        serde_json::from_str(&text).ok()
    };
    let Some(words) = read().await else { return };
    // They live as long as the page does.
    let kept = words.into_iter().map(|(english, own)| (english, &*own.leak())).collect();
    WORDS.set(kept);
    if let Some(root) = document().document_element() {
        let _ = root.set_attribute("lang", "zh-CN");
    }
}

/// Chooses the other language, and loads the page anew in it. What the address says of a language goes, so that it does not contradict.
pub fn turn() {
    if let Ok(Some(storage)) = window().local_storage() {
        let _ = storage.set_item(STORAGE_KEY, if is_chinese() { "en" } else { CHINESE });
    }
    let location = window().location();
    let search = location.search().unwrap_or_default();
    let rest: Vec<&str> =
        search.trim_start_matches('?').split('&').filter(|p| !p.starts_with("lang=") && !p.is_empty()).collect();
    if search.contains("lang=") {
        let _ = location.set_search(&rest.join("&"));
    } else {
        let _ = location.reload();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moslim_shared::config::settings::{Depth, Kind, SECTIONS, SETTINGS, Setting};
    use moslim_shared::event::Stage;
    use moslim_shared::presets;
    use moslim_shared::study::preset_list;
    use moslim_shared::summary::{Grader, Wording};
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The text of a literal that begins here, behind its first quote.
    fn literal(code: &str) -> String {
        let mut out = String::new();
        let mut chars = code.chars();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => match chars.next() {
                    Some('\n') => {
                        let rest = chars.as_str().trim_start();
                        chars = rest.chars();
                    }
                    Some('n') => out.push('\n'),
                    Some(other) => out.push(other),
                    None => break,
                },
                plain => out.push(plain),
            }
        }
        out
    }

    /// Every literal that is given to [`t`] or [`said`].
    fn in_code(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                in_code(&path, found);
                continue;
            }
            let code = std::fs::read_to_string(&path).unwrap();
            let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for call in ["t(", "said("] {
                for (at, _) in code.match_indices(call) {
                    let own = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '.');
                    let begins = code[at + call.len()..].trim_start().strip_prefix('"');
                    if let Some(text) = begins.filter(|_| own) {
                        found.insert(literal(text));
                    }
                }
            }
        }
    }

    /// What `moslim-shared` calls things, where the page shows it to people.
    fn of_shared() -> Vec<String> {
        let stages = Stage::ALL.map(|s| s.title().to_string());
        let graders = [Grader::Gold, Grader::RewardModel, Grader::HeldOutRewardModel].map(|g| g.title().to_string());
        let wordings = Wording::ALL.map(|w| w.title().to_string());
        let depths = Depth::ALL.map(|d| d.title().to_string());
        let sections = SECTIONS.iter().flat_map(|s| [s.title, s.intro]).map(String::from);
        let choices = |s: &Setting| if let Kind::Choice(list) = s.kind { list.iter().map(|c| c.1).collect() } else { Vec::new() };
        let settings = SETTINGS.iter().flat_map(|s| choices(s).into_iter().chain([s.title, s.help, s.unit])).map(String::from);
        let presets = presets::all().into_iter().flat_map(|p| [p.title, p.description]);
        let studies = preset_list().into_iter().map(|s| s.question);
        let all = stages.into_iter().chain(graders).chain(wordings).chain(depths).chain(sections).chain(settings);
        all.chain(presets).chain(studies).filter(|text| !text.is_empty()).collect()
    }

    #[test]
    fn the_dictionary_has_every_text_that_is_translated_and_no_other() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut wanted = BTreeSet::new();
        in_code(&root.join("src"), &mut wanted);
        wanted.extend(crate::pages::learn::texts().map(String::from));
        wanted.extend(of_shared());
        let words: HashMap<String, String> =
            serde_json::from_slice(&std::fs::read(root.join("../static/zh.json")).unwrap()).unwrap();
        let known: BTreeSet<String> = words.keys().cloned().collect();
        let missing: Vec<&String> = wanted.difference(&known).collect();
        let stale: Vec<&String> = known.difference(&wanted).collect();
        assert!(missing.is_empty() && stale.is_empty(), "not translated: {missing:#?}\nnobody says any more: {stale:#?}");
        assert!(wanted.len() > 100, "{}", wanted.len());
        // Values go where they went.
        for (english, own) in &words {
            let places = |text: &str| (0..4).filter(|n| text.contains(&format!("{{{n}}}"))).collect::<Vec<_>>();
            assert_eq!(places(english), places(own), "{english}");
        }
    }

    #[test]
    fn values_take_their_places_in_either_order() {
        WORDS.set([("{0} of {1}".to_string(), "{1} 中的 {0}")].into());
        assert_eq!((said("{0} of {1}", &["2", "5"]), t("more")), ("5 中的 2".to_string(), "more"));
        WORDS.set(HashMap::new());
        assert_eq!(said("{0} of {1}", &["2", "5"]), "2 of 5");
    }
}
