//! External data in every place that can contain it, and every reason to reject it.

use super::*;
use crate::weights::Bytes;

/// Encodes a varint.
fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Encodes field `key` with a number.
fn is(key: u64, value: u64) -> Vec<u8> {
    [number(key << 3), number(value)].concat()
}

/// Encodes field `key` with bytes, text or a message.
fn of(key: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [number((key << 3) | 2), number(value.len() as u64), value.to_vec()].concat()
}

fn entry(key: &str, value: &str) -> Vec<u8> {
    of(13, [of(1, key), of(2, value)].concat())
}

/// A tensor of two f32 with these entries of external data.
fn tensor(entries: &[(&str, &str)]) -> Vec<u8> {
    let entries: Vec<_> = entries.iter().map(|(key, value)| entry(key, value)).collect();
    [is(1, 2), is(2, 1), of(8, "W"), entries.concat(), is(14, 1)].concat()
}

/// A tensor whose data starts at `offset` in w.bin.
fn at(offset: &str) -> Vec<u8> {
    tensor(&[("location", "w.bin"), ("offset", offset), ("length", "8")])
}

fn graph(fields: impl AsRef<[u8]>) -> Vec<u8> {
    [is(1, 8), of(7, fields)].concat()
}

fn initializer(tensor: impl AsRef<[u8]>) -> Vec<u8> {
    graph(of(5, tensor))
}

fn files(bytes: usize) -> Vec<DataFile> {
    let bytes = (0..bytes).map(|index| index as u8).collect();
    vec![DataFile { name: "w.bin".to_owned(), bytes: Bytes::Owned(bytes) }]
}

/// Returns the message for a model that is rejected with a data file of 16 bytes.
fn rejection(model: &[u8]) -> String {
    match inline(model, &files(16)) {
        Err(Rejection::Data(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn models_without_external_data_are_unchanged() {
    let own = [is(1, 2), is(2, 1), of(8, "W"), of(9, [0; 8]), is(14, 0)].concat();
    for model in [Vec::new(), initializer(own), graph([of(2, "g"), of(1, of(4, "Identity"))].concat())] {
        assert_eq!(inline(&model, &files(16)), Ok(Cow::Borrowed(&model[..])));
    }
    let shipped = include_bytes!("../../../../../weights/toxic-bilstm/model.onnx");
    assert!(matches!(inline(shipped, &[]), Ok(Cow::Borrowed(_))));
}

#[test]
fn external_data_is_inlined_in_every_tensor() {
    let attribute = |fields: Vec<u8>| graph(of(1, of(5, [of(1, "value"), fields].concat())));
    let sparse = |key: u64| of(key, [of(1, at("0")), of(2, at("8")), is(3, 4)].concat());
    let function = |fields: Vec<u8>| of(25, fields);
    let cases = [
        initializer(at("0")),
        graph([of(5, at("0")), of(2, "g"), of(5, at("8"))].concat()),
        graph(sparse(15)),
        attribute(of(5, at("0"))),
        attribute([of(10, at("0")), of(10, at("8"))].concat()),
        attribute(of(6, of(5, at("0")))),
        attribute([of(11, of(5, at("0"))), of(11, of(1, of(5, of(5, at("8")))))].concat()),
        attribute(sparse(22)),
        attribute(sparse(23)),
        function(of(7, of(5, of(5, at("0"))))),
        function(of(11, of(5, at("0")))),
        [of(20, of(1, of(5, at("0")))), of(20, of(2, of(5, at("8"))))].concat(),
    ];
    for model in cases {
        let left = inline(&model, &[]);
        assert!(matches!(left, Err(Rejection::Data(_))), "{left:?}");
        let files = files(16);
        let inlined = inline(&model, &files).unwrap().into_owned();
        assert_ne!(inlined, model);
        // The result has no external data, so it needs no files.
        assert_eq!(inline(&inlined, &[]), Ok(Cow::Borrowed(&inlined[..])));
    }
    let expected =
        initializer([is(1, 2), is(2, 1), of(8, "W"), of(9, [8, 9, 10, 11, 12, 13, 14, 15])].concat());
    assert_eq!(inline(&initializer(at("8")), &files(16)).unwrap(), expected);
    // The default length follows from type and shape, the default offset is 0, and dimensions may
    // be packed.
    let bare = [of(1, [2, 2]), is(2, 10), entry("location", "w.bin"), is(14, 1)].concat();
    let expected = initializer([of(1, [2, 2]), is(2, 10), of(9, [0, 1, 2, 3, 4, 5, 6, 7])].concat());
    assert_eq!(inline(&initializer(bare), &files(16)).unwrap(), expected);
}

#[test]
fn unlisted_data_is_rejected() {
    for location in
        ["other.bin", "../w.bin", "./w.bin", "/etc/passwd", "sub/w.bin", "w.bin/", "*/_ORT_MEM_ADDR_/*", ""]
    {
        let message = rejection(&initializer(tensor(&[("location", location)])));
        let expected = format!(
            "tensor `W`: reads external data from `{location}`, which the card does not list; it lists `w.bin`."
        );
        assert!(message.starts_with(&expected), "{message}");
    }
    let Err(Rejection::Data(message)) = inline(&initializer(at("0")), &[]) else { panic!("it is loaded") };
    assert!(message.contains("it lists no data files. Put the file beside the card"), "{message}");
    let long = rejection(&initializer(tensor(&[("location", &"ä".repeat(10_000))])));
    assert!(long.len() < 1_000, "{}", long.len());
}

#[test]
fn data_is_complete_and_read_once() {
    let location = ("location", "w.bin");
    let own = [at("0"), of(9, [0; 8])].concat();
    let later = [tensor(&[location]), is(14, 0)].concat();
    let cut = [is(1, 2), is(2, 1), entry("location", "x"), number(14 << 3), number(1 << 32)].concat();
    let cases = [
        (tensor(&[]), "has external data without a `location`"),
        (tensor(&[location, location]), "has two entries `location` of external data"),
        (tensor(&[location, ("offset", "9")]), "reads 8 bytes from 9 of `w.bin`, which has 16"),
        (
            tensor(&[location, ("offset", "18446744073709551615")]),
            "reads 8 bytes from 18446744073709551615 of `w.bin`",
        ),
        (tensor(&[location, ("offset", "-1")]), "has external data whose `offset` is not a number"),
        (tensor(&[location, ("offset", "+1")]), "has external data whose `offset` is not a number"),
        (tensor(&[location, ("length", "0x8")]), "has external data whose `length` is not a number"),
        (
            tensor(&[location, ("length", "4")]),
            "has 4 bytes of external data, expected 8 by its type and shape",
        ),
        (tensor(&[location, ("prepacked", "1")]), "has external data with the unknown key `prepacked`"),
        (own, "has both inline and external data"),
        ([is(2, 8), entry("location", "w.bin"), is(14, 1)].concat(), "of unknown type or size"),
        (
            [is(1, u64::MAX), is(2, 1), entry("location", "w.bin"), is(14, 1)].concat(),
            "of unknown type or size",
        ),
        (
            [is(1, 1 << 62), is(1, 4), is(2, 1), entry("location", "w.bin"), is(14, 1)].concat(),
            "of unknown type or size",
        ),
        // Parsers disagree about these; they count as external.
        (later, ""),
        (cut, "reads external data from `x`"),
    ];
    for (tensor, expected) in cases {
        let model = initializer(&tensor);
        if expected.is_empty() {
            assert!(inline(&model, &[]).is_err() && inline(&model, &files(16)).is_ok());
            continue;
        }
        let message = rejection(&model);
        assert!(message.contains(expected), "{message}");
    }
    let twice = graph([of(5, at("0")), of(5, at("8")), of(5, at("0"))].concat());
    assert!(rejection(&twice).contains("read more bytes than the data files have"), "{}", rejection(&twice));
}

/// A type of 20,000 levels: sequences, optionals or maps, by the number of their field in a type
/// and of the type in them.
fn nested_type(field: u32, element: u32) -> Vec<u8> {
    // Built from the inside, with lengths of fields known only then.
    let mut pieces = Vec::new();
    let mut length = 0;
    for _ in 0..20_000 {
        for number in [element, field] {
            let head = head(number, length as u64);
            length += head.len();
            pieces.push(head);
        }
    }
    pieces.reverse();
    pieces.concat()
}

#[test]
fn invalid_models_are_rejected() {
    // Each level is a node, an attribute and a graph.
    let deep = (0..40).fold(of(5, at("0")), |graph, _| of(1, of(5, of(6, graph))));
    let cases = [
        (b"not a model at all".to_vec(), "not an ONNX model"),
        (of(7, [0x0b]), "a field is a group"),
        (is(7, 1), "field 7 of `Model` is a number, expected a message"),
        ([graph(of(2, "g")), graph(of(5, at("0")))].concat(), "field 7 of `Model` occurs twice"),
        (
            graph(of(1, of(5, [of(5, entry("location", "x")), of(5, is(14, 1))].concat()))),
            "field 5 of `Attribute` occurs twice",
        ),
        (initializer(of(14, "1")), "external data is malformed"),
        (initializer(of(13, of(3, "x"))), "external data is malformed"),
        (initializer(of(13, of(1, [0xff]))), "not in UTF-8"),
        (b"\x08\x08\0\0ORTM".to_vec(), "has the format of ONNX Runtime"),
        (b"RTEN\0\0\0\0".to_vec(), "has the format of rten"),
        (b"\x08\x08\0\0RTEN".to_vec(), "has the format of rten"),
        (graph(deep), "nested more than 100 deep"),
        (graph(of(11, of(2, nested_type(4, 1)))), "nested more than 100 deep"),
        (graph(of(12, of(2, nested_type(9, 1)))), "nested more than 100 deep"),
        (graph(of(13, of(2, nested_type(5, 2)))), "nested more than 100 deep"),
        (graph(of(1, of(5, of(14, nested_type(4, 1))))), "nested more than 100 deep"),
    ];
    for (bytes, expected) in cases {
        match inline(&bytes, &files(16)) {
            Err(Rejection::Malformed(message)) => {
                assert!(message.contains(expected), "{message}, not {expected}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn bit_flips_never_leave_external_data() {
    let model = graph([of(5, at("0")), of(1, of(5, of(5, at("8")))), of(2, "graph")].concat());
    let files = files(16);
    let check = |model: &[u8]| {
        if let Ok(inlined) = inline(model, &files) {
            assert!(inline(&inlined, &[]).is_ok(), "{model:?}");
        }
    };
    for end in 0..model.len() {
        check(&model[..end]);
        for bit in 0..8 {
            let mut changed = model.clone();
            changed[end] ^= 1 << bit;
            check(&changed);
        }
    }
}
