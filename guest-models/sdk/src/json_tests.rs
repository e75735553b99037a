use super::*;

/// Result of a strict and complete library for the same text.
fn reference(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

fn whole(text: &str) -> Result<String, Unexpected> {
    let mut reader = Reader::new(text);
    let string = reader.string()?;
    reader.end().map(|()| string)
}

#[test]
fn strings_survive_a_round_trip() {
    let every: String =
        ('\0'..='\u{2ff}').chain(['\u{2028}', '\u{fffd}', '\u{1f600}', '\u{10ffff}']).collect();
    for text in
        ["", "plain", "\"quoted\" \\ / back", "a\nb\r\tc\0d", "<|im_end|>", &every, &every.repeat(1000)]
    {
        let mut json = String::new();
        push_string(&mut json, text);
        assert_eq!(whole(&json).as_deref(), Ok(text));
        assert_eq!(reference(&json).as_deref(), Some(text));
    }
}

#[test]
fn strings_are_read_as_by_serde_json() {
    let cases = [
        r#""""#,
        r#" "a" "#,
        r#""\u0041\u00e9\ud83d\ude00\/\b\f\n\r\t""#,
        r#""\ud83d""#,
        r#""\ud83dx""#,
        r#""\ud83d\u0041""#,
        r#""\ude00""#,
        r#""\u+041""#,
        r#""\u00é""#,
        r#""\u12"#,
        r#""\x""#,
        r#""\"#,
        "\"a\nb\"",
        r#""open"#,
        r#"plain"#,
        r#""a" b"#,
        "",
    ];
    for case in cases {
        assert_eq!(whole(case).ok(), reference(case), "{case}");
    }
}

#[test]
fn unknown_members_are_skipped() {
    let text = r#" { "n" : -1.5e2, "x": [{"a": ["]", {}]}, null, 1e-3], "yes":true , "list":["a","b"] } "#;
    let (mut n, mut yes, mut list) = (0.0, false, Vec::new());
    let mut reader = Reader::new(text);
    let read = reader.object(&mut |reader, name| {
        match name {
            "n" => n = reader.number()?,
            "yes" => yes = reader.boolean()?,
            "list" => reader.array(&mut |reader| {
                list.push(reader.string()?);
                Ok(())
            })?,
            _ => reader.skip()?,
        }
        Ok(())
    });
    assert_eq!(read.and_then(|()| reader.end()), Ok(()));
    assert_eq!((n, yes, list), (-150.0, true, vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn errors_name_their_position() {
    let skip = |text: &str| {
        let mut reader = Reader::new(text);
        reader.skip().and_then(|()| reader.end()).map_err(|error| error.to_string())
    };
    let deep = "[".repeat(1_000_000);
    let cases = [
        ("", "expected a value at byte 0"),
        ("[1,", "expected a value at byte 3"),
        ("{\"a\":\"b", "expected the rest of a string at byte 7"),
        ("1 2", "expected nothing more at byte 2"),
        ("]", "expected a value at byte 0"),
        (&deep, "expected a value at byte 1000000"),
    ];
    for (text, expected) in cases {
        assert_eq!(skip(text), Err(expected.to_owned()));
    }
    let object = Reader::new("{\"a\" 1}").object(&mut |reader, _| reader.skip());
    assert_eq!(object.unwrap_err().to_string(), "expected `:` at byte 5");
    assert_eq!(
        Reader::new("[1 2]").array(&mut |r| r.skip()).unwrap_err().to_string(),
        "expected `,` or `]` at byte 3"
    );
    assert_eq!(Reader::new("nan").number().unwrap_err().to_string(), "expected a number at byte 0");
    assert_eq!(
        Reader::new("True").boolean().unwrap_err().to_string(),
        "expected `true` or `false` at byte 0"
    );
}
