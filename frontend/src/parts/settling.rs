//! A page that fills: what one reads does not move.

use leptos::prelude::*;

/// Whether a page is still filling: until it `is_told` for the first time. The style sheet hides what is in an element of the class
/// `settling`, for a second at most.
pub fn settling(is_told: impl Fn() -> bool + Send + Sync + 'static) -> Memo<bool> {
    Memo::new(move |was: Option<&bool>| was != Some(&false) && !is_told())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_once_is_never_hidden_again() {
        let told = ArcRwSignal::new(false);
        let own = told.clone();
        let owner = Owner::new();
        let settling = owner.with(|| settling(move || own.get()));
        assert!(settling.get_untracked());
        told.set(true);
        assert!(!settling.get_untracked());
        told.set(false);
        assert!(!settling.get_untracked());
    }
}
