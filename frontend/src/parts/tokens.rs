//! A text as a model reads it, each token in a box of its own.

use crate::words::t;
use leptos::prelude::*;
use moslim_shared::inference::Reading;

/// The tokens behind a summary that opens. Their text stays as it is, so that it can be copied; signs are drawn by the style sheet.
pub fn tokens(summary: String, read: &Reading) -> AnyView {
    let token = |(n, text): (usize, &String)| {
        let (special, sign) = (read.special.contains(&n), sign(text));
        view! { <span class:special=special data-sign=sign>{text.clone()}</span> }
    };
    let all = read.pieces.iter().enumerate().map(token).collect_view();
    view! {
        <details class="read" class:gone=read.pieces.is_empty()>
            <summary>{summary}</summary>
            <pre class="tokens" tabindex="0">{all}</pre>
            <p class="hint">
                {t("One box, one token. · is a space, ⏎ a line break, ⋯ part of a character. Bold: roles, ends and tags, which no text can spell.")}
            </p>
        </details>
    }
    .into_any()
}

/// What stands for the beginning of a token where that cannot be seen.
fn sign(text: &str) -> &'static str {
    match text.chars().next() {
        None => "⋯",
        Some(' ') => "·",
        Some('\n') => "⏎",
        Some(_) => "",
    }
}
