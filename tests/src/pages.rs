//! The pages of the lab: at which address each is, and how one sees that it is there.

/// A page.
#[derive(Debug, Clone)]
pub struct Page {
    pub name: String,
    /// Its address within the lab.
    pub path: String,
    /// A JavaScript condition: what it is about is there.
    pub there: &'static str,
    /// What is done on it then, and the condition which says that it was.
    pub then: Option<(&'static str, &'static str)>,
}

impl Page {
    /// A page as it is opened.
    pub fn new(name: impl Into<String>, path: impl Into<String>, there: &'static str) -> Self {
        Self { name: name.into(), path: path.into(), there, then: None }
    }

    /// The page after something was done on it.
    pub fn after(self, done: &'static str, seen: &'static str) -> Self {
        Self { then: Some((done, seen)), ..self }
    }
}

/// Every page of a lab that has two finished runs.
pub fn pages(run: &str, other: &str) -> Vec<Page> {
    vec![
        Page::new("home", "/", "document.querySelector('#runs a.run') !== null"),
        Page::new("run", format!("/runs/{run}"), "document.querySelectorAll('table.matrix').length > 3"),
        Page::new("learn", "/learn", "document.querySelectorAll('.station').length === 7"),
        Page::new("playground", format!("/playground?in={run}"), "document.querySelectorAll('.lane').length > 0"),
        Page::new("configure", "/configure?preset=quick", "document.querySelector('#start-run')?.disabled === false"),
        Page::new(
            "compare",
            format!("/compare?runs={run},{other}"),
            "document.querySelectorAll('.chosen .chip').length === 2 && document.querySelector('.comparison tbody tr') !== null",
        ),
        Page::new("studies", "/studies", "document.querySelector('[data-study-preset]') !== null"),
        Page::new("data", "/data", "document.querySelector('#import') !== null"),
        Page::new("models", "/models", "document.querySelector('#models .run, #models .empty') !== null"),
    ]
}
