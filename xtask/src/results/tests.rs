use super::*;
use moslim_shared::presets;
use moslim_shared::study::Axis;
use moslim_shared::summary::PartReport;
use serde_json::json;

/// A folder with one study, which goes with the test.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("moslim-results-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let group = |label: &str, mean: f64| StudyGroup {
        labels: vec![label.into()],
        seeds: vec![1, 2],
        metrics: METRICS.iter().map(|_| Spread { mean, low: mean - 0.05, high: mean + 0.05 }).collect(),
        front: vec![],
    };
    let row = |label: &str, seed, hit_rate| StudyRow {
        labels: vec![label.into()],
        seed,
        metrics: METRICS.iter().enumerate().map(|(m, _)| hit_rate * (m + 1) as f64).collect(),
        parts: vec![PartReport { part: "new topics".into(), n: 3, figures: ControlFigures { hit_rate, ..Default::default() } }],
        front_parts: vec![FrontPart { part: "new topics".into(), n: 3, hypervolume: hit_rate / 2.0, expected_utility: 0.7 }],
        ..Default::default()
    };
    let study = StudyResults {
        axes: vec!["method".into()],
        groups: vec![group("A · as shipped", 0.5), group("A · half", 0.58), group("B · as shipped", 0.9)],
        runs: vec![row("A · half", 1, 0.2), row("A · half", 2, 0.4)],
        ..Default::default()
    };
    let axis = Axis::field("method", "method.kind", &[json!("ric")]);
    let base = presets::find("smoke").unwrap().config;
    let plan = StudyConfig { name: "s".into(), question: String::new(), base, axes: vec![axis], seeds: vec![1, 2] };
    std::fs::write(folder.join("s.json"), serde_json::to_vec(&plan).unwrap()).unwrap();
    // One of whose runs there are some.
    let begun = StudyConfig { seeds: vec![1, 2, 3], ..plan };
    std::fs::write(folder.join("begun.json"), serde_json::to_vec(&begun).unwrap()).unwrap();
    for id in ["s", "begun"] {
        std::fs::write(folder.join(format!("{id}.results.json")), serde_json::to_vec(&study).unwrap()).unwrap();
    }
    folder
}

#[test]
fn directives_become_figures() {
    let folder = folder("figures");
    let made = |text: &str| render(text, &folder).unwrap();
    assert_eq!(made("It is {{mean s | A · half | hit_rate}}."), "It is 0.580 (0.530–0.630).");
    let table = made("{{table s | hypervolume hit_rate | B · as shipped}}");
    assert_eq!(
        table,
        "| method | hypervolume | hit rate |\n|---|---|---|\n| B · as shipped | 0.900 (0.850–0.950) | 0.900 (0.850–0.950) |"
    );
    assert!(made("{{parts s | hit_rate}}").contains("| A · half | 0.300 |"));
    assert!(made("{{parts s | hypervolume expected_utility}}").contains("| A · half | 0.150 | 0.700 |"));
    assert_eq!(made("{{part s | A · half | new topics | hypervolume}}"), "0.150");
    assert!(render("{{part s | A · half | old topics | hypervolume}}", &folder).is_err());
    assert_eq!(made("{{gap s | A · as shipped | B · as shipped | hit_rate}}"), "0.400");
    // The second metric is twice the first, of runs with 0.2 and 0.4.
    let [first, second] = [METRICS[0].id, METRICS[1].id];
    assert_eq!(made(&format!("{{{{least s | {second} {first}}}}}")), "0.200");
    assert_eq!(made(&format!("{{{{least s | {first} {second}}}}}")), "-0.400");
    let versus = made("{{versus s | A · half | A · as shipped; B · as shipped | hit_rate}}");
    assert!(versus.contains("| A · as shipped | 0.080 ahead, intervals overlap |"), "{versus}");
    assert!(versus.contains("| B · as shipped | 0.320 behind |"), "{versus}");
    assert!(made("{{tuned s | fronts}}").contains("| A | half | 0.580 | 0.580 | 0.500, 0.500 |"));
    assert_eq!(made("{{each s | A · half | hypervolume}}, {{range s | hypervolume | A · half}}"), "0.200, 0.400, 0.20 to 0.40");
    assert!(render("{{range s | hypervolume | B · as shipped}}", &folder).is_err(), "it has no runs");
    assert_eq!(made("{{set s | method.kind}}, {{set s | ric | method.kind}}"), "moslim, ric");
    assert_eq!(made("{{set s | ric | policy.prompts}}"), "8");
    assert_eq!(made("{{tries s}}"), "1 to 2 tries for each of 2");
    assert_eq!(made("{{runs s}}"), "2 runs, seeds 1, 2");
    assert_eq!(made("a{{when s}}b {{runs s}}{{end}}c{{when t}}d {{runs t}}{{end}}e"), "ab 2 runs, seeds 1, 2ce");
    assert_eq!(made("a{{when begun}}b{{end}}c"), "ac");
    for (text, what) in [
        ("{{mean s | C | hit_rate}}", "no setting is called C; known are A · as shipped"),
        ("{{mean s | A · half | hits}}", "no metric is called hits"),
        ("{{set s | policy.sauce}}", "policy.sauce names no field"),
        ("{{mean t | A | hit_rate}}", "moslim-lab compare --to docs/studies"),
        ("{{sum s}}", "unknown directive"),
        ("{{mean s", "does not end"),
        ("{{when s}} ..", "has no {{end}}"),
    ] {
        let error = format!("{:#}", render(text, &folder).unwrap_err());
        assert!(error.contains(what), "{error}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
