//! What the browser calls a page, in its tab and its history. Files that are saved from a page say it, too.

use crate::parts::memo::effect;
use crate::words::said;
use leptos::prelude::*;
use leptos_router::hooks::use_location;

/// What every title ends with.
const LAB: &str = "MOSLIM Lab";

/// The name that a page has given itself, and the path that it was given at: what a page that was left says does not count.
#[derive(Clone, Copy)]
struct Named(RwSignal<(String, String)>);

/// Keeps the browser's title. `known`: the name of the page at a path, where that tells it. Belongs into the router.
#[component]
pub fn Title(known: fn(&str) -> String) -> impl IntoView {
    let named = Named(RwSignal::new(Default::default()));
    provide_context(named);
    let path = use_location().pathname;
    effect(move || {
        let path = path.get();
        let own = named.0.with(|(at, name)| (*at == path && !name.is_empty()).then(|| name.clone()));
        document().set_title(&whole(&own.unwrap_or_else(|| known(&path))));
    });
}

/// Calls the page that is shown what `name` says, from now on.
pub fn titled(name: impl Fn() -> String + 'static) {
    let Some(Named(named)) = use_context::<Named>() else { return };
    let path = use_location().pathname.get_untracked();
    effect(move || named.set((path.clone(), name())));
}

/// The element that says the hash of a run's configuration, on pages that have one.
pub const HASH: &str = "config-hash";

/// What a file that is saved from this page says of where it comes from: the page's name and address, and the configuration's hash.
pub fn origin() -> String {
    let location = window().location();
    let address = [location.pathname(), location.search()].map(Result::unwrap_or_default).concat();
    let title = document().title();
    let name = title.strip_suffix(LAB).unwrap_or(&title).trim_end_matches([' ', '·']);
    let hash = document().get_element_by_id(HASH).and_then(|e| e.text_content());
    let hash = hash.map(|hash| said("configuration {0}", &[&hash])).unwrap_or_default();
    [name, &address, &hash].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

fn whole(name: &str) -> String {
    if name.is_empty() { LAB.into() } else { format!("{name} · {LAB}") }
}
