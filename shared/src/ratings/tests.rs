use super::*;

#[test]
fn raters_labels_become_one_in_the_way_that_was_chosen() {
    let label = |agree, scores: &[f64]| Bins::of(5, agree).label(scores);
    assert_eq!(label(Agree::Mean, &[]), None);
    // 4.33 of 1 to 5, and a half, which goes up.
    assert_eq!([3.33, 3.5, 3.49].map(|s| label(Agree::Mean, &[s])), [Some(3), Some(4), Some(3)]);
    assert_eq!(label(Agree::Mean, &[0.1, 0.2, 1.2]), Some(1), "0.5 in decimals");
    assert_eq!(label(Agree::Median, &[0.0, 4.0, 4.0]), Some(4));
    assert_eq!(label(Agree::Median, &[4.0, 1.0]), Some(1));
    assert_eq!(label(Agree::Majority, &[0.0, 0.0, 4.0, 4.0, 3.0]), Some(4));
    assert_eq!(label(Agree::Majority, &[1.0, 3.0]), Some(1));
    assert_eq!(Bins::of(3, Agree::Mean).votes(&[0.0, 2.0, 2.0, 1.4]), [1, 1, 2]);
}

fn task(changes: Vec<Change>) -> RatingsTask {
    let objective =
        |id: &str| ImportedObjective { objective: Objective::new(id, id, "", &["0", "1", "2", "3", "4"]), agree: Agree::Mean };
    let report = ImportReport {
        files: vec![],
        records: 0,
        rows: 0,
        prompts: 0,
        splits: [0; 3],
        duplicates: 0,
        merged: 0,
        dropped: vec![],
        labels: vec![],
    };
    RatingsTask {
        name: "t".into(),
        title: String::new(),
        licence: String::new(),
        hash: String::new(),
        objectives: vec![objective("a"), objective("b")],
        changes,
        report,
        mapping: String::new(),
    }
}

#[test]
fn a_task_is_changed_so_often_and_no_oftener() {
    let often = |n| task(vec![Change::HigherIsBetter { objective: "a".into(), yes: true }; n]).shaped();
    assert_eq!(often(MOST_CHANGES).unwrap().len(), 2);
    assert_eq!(often(MOST_CHANGES + 1), Err("changes: there are 501; allowed are 500".into()));
}

#[test]
fn changes_are_applied_one_after_the_other() {
    let a = || "a".to_string();
    let merge = |from, to, name: &str| Change::Merge { objective: a(), from, to, name: name.into() };
    let shaped = task(vec![
        merge(0, 1, "low"),
        merge(2, 3, "high"),
        Change::RenameClass { objective: a(), class: 1, name: "middle".into() },
        Change::Leave { objective: "b".into() },
    ])
    .shaped()
    .unwrap();
    assert_eq!(shaped.len(), 1);
    assert_eq!(shaped[0].objective.classes, ["low", "middle", "high"]);
    assert_eq!([0.0, 1.4, 1.5, 2.4, 2.5, 4.0].map(|s| shaped[0].bins.class(s)), [0, 0, 1, 1, 2, 2]);
    let rebin = Change::Rebin { objective: "b".into(), edges: vec![3.9], classes: vec!["other".into(), "best".into()] };
    let shaped = task(vec![rebin, Change::HigherIsBetter { objective: "b".into(), yes: false }]).shaped().unwrap();
    assert_eq!((shaped[1].bins.class(3.8), shaped[1].bins.class(4.0), shaped[1].objective.best_class()), (0, 1, 0));
    for (change, words) in [
        (merge(0, 5, "x"), "a has classes 0 to 4, not 5"),
        (merge(2, 2, "x"), "not several"),
        (merge(0, 4, "x"), "fewer than two"),
        (merge(0, 1, &"ä".repeat(201)), "has more than 200 characters"),
        (Change::Leave { objective: "c".into() }, "there is no objective c; there are a, b"),
        (Change::Rebin { objective: a(), edges: vec![2.0, 1.0], classes: vec![] }, "rising"),
        (Change::Rebin { objective: a(), edges: vec![2.0], classes: vec!["x".into()] }, "make 2 classes, not 1"),
    ] {
        let error = task(vec![change]).shaped().unwrap_err();
        assert!(error.starts_with("changes[0]: ") && error.contains(words), "{error}");
    }
}
