//! Text within HTML.

/// `plain` with every character that HTML reads as more than itself written out.
pub fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
