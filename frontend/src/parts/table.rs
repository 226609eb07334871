//! Plain tables of figures.

use crate::words::t;
use leptos::prelude::*;

/// A table whose rows begin with their name. One with the class `wide` scrolls by itself where the page is too narrow for it.
#[component]
pub fn Table(
    class: &'static str,
    #[prop(into)] caption: String,
    /// Names of the columns, or nothing.
    #[prop(optional)]
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
) -> impl IntoView {
    let head = |name: String| match name.is_empty() {
        true => view! { <td></td> }.into_any(),
        false => view! { <th scope="col">{name}</th> }.into_any(),
    };
    let heads = heads.into_iter().map(head).collect_view();
    let rows = rows.into_iter().map(row).collect_view();
    view! {
        <div class="scroll" tabindex="0">
            <table class=class>
                <caption>{caption}</caption>
                <thead><tr>{heads}</tr></thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
}

fn row(cells: Vec<String>) -> impl IntoView {
    let mut cells = cells.into_iter();
    let name = cells.next().map(|text| view! { <th scope="row">{text}</th> });
    let values = cells.map(|text| view! { <td>{text}</td> }).collect_view();
    view! { <tr>{name}{values}</tr> }
}

/// Heads of a table that compares the SFT policy with the method.
pub fn before_after(first: &str) -> Vec<String> {
    vec![first.to_string(), t("before").to_string(), t("after").to_string()]
}
