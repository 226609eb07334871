//! The shell: top bar, theme, routes.

use crate::pages::configure::configure;
use crate::pages::home::home;
use crate::pages::live::live;
use crate::pages::not_found::not_found;
use crate::pages::studies::studies;
use crate::pages::study::study;
use crate::router::{Address, Page, link};
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;

const STORAGE_KEY: &str = "moslim-theme";

/// What a reader can choose for the colours; `auto` is as the system says.
const CHOICES: [&str; 3] = ["auto", "light", "dark"];

/// The theme; charts track `revision`, because a canvas does not follow style sheets by itself.
#[derive(Clone, Copy)]
pub struct Theme {
    /// A position in [`CHOICES`].
    choice: RwSignal<u64>,
    /// Grows whenever colours may have changed.
    pub revision: RwSignal<u64>,
}

impl Theme {
    fn new() -> Self {
        let stored = stored().unwrap_or_default();
        let choice = CHOICES.iter().position(|c| *c == stored).unwrap_or(0) as u64;
        let theme = Self { choice: RwSignal::new(choice), revision: RwSignal::new(0) };
        theme.follow_system();
        theme
    }

    fn follow_system(self) {
        let Ok(Some(query)) = window().match_media("(prefers-color-scheme: dark)") else { return };
        let changed = Closure::<dyn FnMut()>::new(move || {
            self.revision.try_update(|r| *r += 1);
        });
        let _ = query.add_event_listener_with_callback("change", changed.as_ref().unchecked_ref());
        // The shell lives as long as the page does.
        changed.forget();
    }

    fn turn(self) {
        let choice = (self.choice.get_untracked() + 1) % CHOICES.len() as u64;
        let name = CHOICES[choice as usize];
        if let Some(root) = document().document_element() {
            let _ = if choice == 0 { root.remove_attribute("data-theme") } else { root.set_attribute("data-theme", name) };
        }
        if let Ok(Some(storage)) = window().local_storage() {
            let _ = storage.set_item(STORAGE_KEY, name);
        }
        self.choice.set(choice);
        self.revision.update(|r| *r += 1);
    }
}

fn stored() -> Option<String> {
    window().local_storage().ok().flatten()?.get_item(STORAGE_KEY).ok().flatten()
}

/// The application.
pub fn app(pages: Pages) -> AnyView {
    if let Some(boot) = document().get_element_by_id("boot") {
        boot.remove();
    }
    let theme = Theme::new();
    provide_context(theme);
    let address = Address::follow();
    view! {
        <a class="skip" href="#main">"Skip to the content"</a>
        <header class="bar">
            <div class="bar-inner">
                <a class="brand" href="/">
                    <img src="/icon.svg" alt="" width="28" height="28"/>
                    <span>"MOSLIM Lab"</span>
                </a>
                <nav class="nav" aria-label="Pages">
                    {link(address, "/", "Home")}
                    {link(address, "/configure", "Configure")}
                    {link(address, "/studies", "Studies")}
                </nav>
                <button
                    id="theme"
                    class="button quiet small"
                    type="button"
                    title="Change the theme: auto, light, dark"
                    on:click=move |_| theme.turn()
                >
                    {move || format!("Theme: {}", CHOICES[theme.choice.get() as usize])}
                </button>
            </div>
        </header>
        <main id="main" class="page" tabindex="-1">
            {move || page(address, pages)}
        </main>
        <footer class="foot">
            <p>
                "One reward model, graded classes, preferences in the prompt: MOSLIM, arXiv 2505.20336. "
                "Everything here is computed on this machine; nothing is fetched from elsewhere."
            </p>
        </footer>
    }
    .into_any()
}

/// The pages of one module: what is shown for a page's address.
pub type Pages = fn(Address, Page) -> AnyView;

/// The pages of the lab.
pub fn lab(address: Address, page: Page) -> AnyView {
    match page {
        Page::Home => home(address),
        Page::Run(id) => live(id),
        _ => not_found(),
    }
}

/// The pages of the workbench.
pub fn workbench(address: Address, page: Page) -> AnyView {
    match page {
        // A view that follows one of its own type is patched. A list of one is of another type than the first page is, and
        // so is a view that could be absent, so that none of them is patched into another.
        Page::Configure => vec![configure(address)].into_any(),
        Page::Studies => Some(studies(address)).into_any(),
        Page::Study(id) => study(address, id),
        _ => not_found(),
    }
}

/// The page that the address leads to. It is made anew when the path changes, and only then.
fn page(address: Address, pages: Pages) -> AnyView {
    let page = Page::at(&address.path.get());
    untrack(|| pages(address, page))
}
