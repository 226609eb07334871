//! The colours that a reader has chosen.

use crate::words::t;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;

/// Also known to `static/boot.js`, which applies the choice before the first paint.
const STORAGE_KEY: &str = "moslim-theme";

/// What a reader can choose; `auto` is as the system says, and `contrast` is light or dark as it says, with everything as strong as text.
const CHOICES: [&str; 4] = ["auto", "light", "dark", "contrast"];

/// Whether the reader wants nothing to move by itself.
pub fn still() -> bool {
    window().match_media("(prefers-reduced-motion: reduce)").ok().flatten().is_some_and(|query| query.matches())
}

/// The theme; drawings track `revision`, because a canvas does not follow style sheets by itself.
#[derive(Clone, Copy)]
pub struct Theme {
    /// A position in [`CHOICES`].
    choice: RwSignal<usize>,
    /// Grows whenever colours may have changed.
    pub revision: RwSignal<u64>,
}

impl Theme {
    /// What was chosen last. It follows the system from now on.
    pub fn new() -> Self {
        let storage = window().local_storage().ok().flatten();
        let stored = storage.and_then(|s| s.get_item(STORAGE_KEY).ok().flatten()).unwrap_or_default();
        let choice = CHOICES.iter().position(|c| *c == stored).unwrap_or(0);
        let theme = Self { choice: RwSignal::new(choice), revision: RwSignal::new(0) };
        theme.follow_system();
        theme
    }

    fn follow_system(self) {
        let changed = Closure::<dyn FnMut()>::new(move || {
            self.revision.try_update(|r| *r += 1);
        });
        for asked in ["(prefers-color-scheme: dark)", "(prefers-contrast: more)"] {
            if let Ok(Some(query)) = window().match_media(asked) {
                let _ = query.add_event_listener_with_callback("change", changed.as_ref().unchecked_ref());
            }
        }
        // The shell lives as long as the page does.
        changed.forget();
    }

    /// Goes on to the next choice, and remembers it.
    pub fn turn(self) {
        let choice = (self.choice.get_untracked() + 1) % CHOICES.len();
        let name = CHOICES[choice];
        if let Some(root) = document().document_element() {
            let _ = if choice == 0 { root.remove_attribute("data-theme") } else { root.set_attribute("data-theme", name) };
        }
        if let Ok(Some(storage)) = window().local_storage() {
            let _ = storage.set_item(STORAGE_KEY, name);
        }
        self.choice.set(choice);
        self.revision.update(|r| *r += 1);
    }

    /// What is chosen, in a word.
    pub fn name(self) -> &'static str {
        match CHOICES[self.choice.get()] {
            "auto" => t("auto"),
            "light" => t("light"),
            "dark" => t("dark"),
            _ => t("contrast"),
        }
    }
}
