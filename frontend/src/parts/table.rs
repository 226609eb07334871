//! Plain tables of figures.

use leptos::prelude::*;

/// A table whose rows begin with their name. `heads` names the columns, or is empty; a table with the class `wide` scrolls by
/// itself where the page is too narrow for it.
pub fn table(class: &'static str, caption: String, heads: Vec<String>, rows: Vec<Vec<String>>) -> AnyView {
    let heads: Vec<AnyView> = heads.into_iter().map(|h| view! { <th scope="col">{h}</th> }.into_any()).collect();
    let rows: Vec<AnyView> = rows.into_iter().map(row).collect();
    view! {
        <div class="scroll">
            <table class=class>
                <caption>{caption}</caption>
                <thead><tr>{heads}</tr></thead>
                <tbody>{rows}</tbody>
            </table>
        </div>
    }
    .into_any()
}

fn row(cells: Vec<String>) -> AnyView {
    let cells: Vec<AnyView> = cells.into_iter().enumerate().map(|(n, text)| cell(n == 0, text)).collect();
    view! { <tr>{cells}</tr> }.into_any()
}

fn cell(name: bool, text: String) -> AnyView {
    if name { view! { <th scope="row">{text}</th> }.into_any() } else { view! { <td>{text}</td> }.into_any() }
}

/// Heads of a table that compares the SFT policy with the method.
pub fn before_after(first: &str) -> Vec<String> {
    vec![first.to_string(), "before".to_string(), "after".to_string()]
}
