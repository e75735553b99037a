//! `infer bench --dataset`: labels of text models, and categories of moderators.

use serde_json::{Value, json};

use super::{bench, report, stderr};

#[test]
fn labelled_texts_measure_text_models() {
    let folder = tempfile::tempdir().unwrap();
    let text = |text: &str, members: Value| {
        let mut line = members;
        line["text"] = text.into();
        format!("{line}\n")
    };
    let insult = "You are so dumb and stupid!";
    let calm = "The council moves the market to the other side of the river.";
    let write = |lines: &[String]| std::fs::write(folder.path().join("d.jsonl"), lines.concat()).unwrap();
    let arguments = ["--model", "toxic-bilstm", "-n", "4", "-r", "2", "--dataset", "d.jsonl"];

    write(&[
        text(insult, json!({ "category": "insult", "label": true })),
        text(calm, json!({ "category": "insult", "label": false })),
        text(calm, json!({ "category": "threat", "label": 0 })),
        text(calm, json!({})),
    ]);
    for native in [&[][..], &["--native"]] {
        let report = report(folder.path(), &[&arguments[..], native].concat());
        let quality = &report["quality"];
        assert_eq!(report["task"], "tensor");
        assert_eq!(
            (&quality["accuracy"], &quality["auroc"], &quality["examples"]),
            (&json!(1.0), &json!(1.0), &json!(3)),
            "{report}"
        );
    }
    write(&[text(insult, json!({ "label": "toxic" })), text(insult, json!({ "label": "threat" }))]);
    let report = report(folder.path(), &arguments);
    assert_eq!(report["quality"]["accuracy"], 0.5, "toxic has the highest score: {report}");

    let refused = [
        (json!({ "label": "bad" }), "d.jsonl:1: `label` is \"bad\", expected one of `toxic`"),
        (json!({ "label": true }), "d.jsonl:1: `label` is true without a `category`"),
        (json!({ "category": "x", "label": true }), "d.jsonl:1: `category` is \"x\", expected one of"),
    ];
    for (members, expected) in refused {
        write(&[text(insult, members)]);
        let output = bench(folder.path(), &arguments);
        assert!(!output.status.success() && stderr(&output).contains(expected), "{}", stderr(&output));
    }
    write(&[
        text(insult, json!({ "label": "toxic" })),
        text(insult, json!({ "category": "toxic", "label": 1 })),
    ]);
    assert!(stderr(&bench(folder.path(), &arguments)).contains("d.jsonl:2: `label` is of another kind"));
}

#[test]
fn category_of_an_example_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let write = |category: &str| {
        let lines = [("You are so dumb and stupid!", true), ("The market moves to the river.", false)];
        let line = |(text, label)| json!({ "text": text, "category": category, "label": label }).to_string();
        std::fs::write(folder.path().join("d.jsonl"), lines.map(line).join("\n")).unwrap();
    };
    let arguments = ["--component", "moderate", "-n", "4", "-r", "2", "--dataset", "d.jsonl"];
    for (category, accuracy) in [("harassment", 1.0), ("insult", 0.5)] {
        write(category);
        let report = report(folder.path(), &arguments);
        let quality = &report["quality"];
        assert_eq!(
            (&quality["accuracy"], &quality["auroc"]),
            (&json!(accuracy), &json!(1.0)),
            "`insult` has no threshold, so it is never flagged: {category} {quality}"
        );
    }
    write("harasment");
    let output = bench(folder.path(), &arguments);
    let expected = "no label of the dataset can be compared with an answer: an answer without the category \
                    `harasment`; it has `harassment`";
    assert!(!output.status.success() && stderr(&output).contains(expected), "{}", stderr(&output));
}
