use infer_kernels::WeightType;

use super::write::Writer;
use super::*;

/// A file with every kind of value, and three tensors.
fn small() -> Writer {
    Writer::new("llama")
        .u32("llama.block_count", 2)
        .f32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        .bool("tokenizer.ggml.add_bos_token", true)
        .texts("tokenizer.ggml.tokens", &["<s>", "a", "▁b"])
        .f32s("tokenizer.ggml.scores", &[0.0, -1.0, -2.5])
        .i32s("tokenizer.ggml.token_type", &[3, 1, 1])
        .tensor("token_embd.weight", &[3, 4], 1, (0..24).collect())
        .tensor("output_norm.weight", &[4], 0, (0..16).collect())
        .tensor("blk.0.ffn_up.weight", &[2, 64], 2, (0..72).collect())
}

fn parse(writer: &Writer) -> Result<Gguf, GgufError> {
    Gguf::parse(Bytes::Owned(writer.build()))
}

fn parse_error(writer: &Writer) -> String {
    parse(writer).unwrap_err().to_string()
}

#[test]
fn every_value_type_is_read() {
    let gguf = parse(&small()).unwrap();
    assert_eq!(gguf.architecture().unwrap(), "llama");
    assert_eq!(gguf.u32("llama.block_count").unwrap(), Some(2));
    assert_eq!(gguf.require_u32("llama.block_count").unwrap(), 2);
    assert_eq!(gguf.f32("llama.attention.layer_norm_rms_epsilon").unwrap(), Some(1e-5));
    assert_eq!(gguf.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    assert_eq!(gguf.strings("tokenizer.ggml.tokens").unwrap(), Some(vec!["<s>", "a", "▁b"]));
    assert_eq!(gguf.f32s("tokenizer.ggml.scores").unwrap(), Some(vec![0.0, -1.0, -2.5]));
    assert_eq!(gguf.i32s("tokenizer.ggml.token_type").unwrap(), Some(vec![3, 1, 1]));
    assert_eq!(gguf.u32s("tokenizer.ggml.token_type").unwrap(), Some(vec![3, 1, 1]));
    assert_eq!(gguf.u32("absent").unwrap(), None);

    let names: Vec<_> = gguf.tensor_names().collect();
    assert_eq!(names, ["token_embd.weight", "output_norm.weight", "blk.0.ffn_up.weight"]);
    let embedding = gguf.require_tensor("token_embd.weight", &[3, 4]).unwrap();
    assert_eq!((embedding.ty, embedding.data), (WeightType::F16, &(0..24).collect::<Vec<u8>>()[..]));
    let up = gguf.tensor("blk.0.ffn_up.weight").unwrap();
    assert_eq!((up.ty, up.shape, up.data.len()), (WeightType::Q4_0, vec![2, 64], 72));
    assert!(gguf.tensor("absent").is_none());
    gguf.forget("token_embd.weight");
}

#[test]
fn integers_of_any_width_are_accepted() {
    let cases: [(u32, &[u8], Result<u32, &str>); 9] = [
        (0, &[200], Ok(200)),
        (1, &[0xff], Err("the integer -1")),
        (2, &[1, 2], Ok(513)),
        (3, &[1, 2], Ok(513)),
        (5, &[0, 0, 0, 0x80], Err("the integer -2147483648")),
        (10, &[1, 0, 0, 0, 0, 0, 0, 0], Ok(1)),
        (10, &[0, 0, 0, 0, 1, 0, 0, 0], Err("the integer 4294967296")),
        (11, &[9, 0, 0, 0, 0, 0, 0, 0], Ok(9)),
        (6, &[0, 0, 0x80, 0x3f], Err("the float 1")),
    ];
    for (kind, bytes, expected) in cases {
        let gguf = parse(&small().raw("k", kind, bytes)).unwrap();
        let found = gguf.u32("k").map_err(|error| error.to_string());
        let message_start = |found| format!("key `k` is {found}; expected an integer of 0 to 4294967295");
        assert_eq!(found, expected.map(Some).map_err(message_start));
    }
}

#[test]
fn wrong_value_type_names_the_key() {
    let gguf = parse(&small()).unwrap();
    let message_start = [
        (
            gguf.str("llama.block_count").map(drop),
            "key `llama.block_count` is the integer 2; expected a string",
        ),
        (
            gguf.strings("tokenizer.ggml.scores").map(drop),
            "key `tokenizer.ggml.scores` is an array of 3, the first the float 0; expected an array of strings",
        ),
        (
            gguf.f32s("tokenizer.ggml.tokens").map(drop),
            "key `tokenizer.ggml.tokens` is an array of 3, the first `<s>`; expected an array of finite numbers",
        ),
        (
            gguf.bool("general.architecture").map(drop),
            "key `general.architecture` is the string `llama`; expected a bool",
        ),
        (
            gguf.require_u32("llama.embedding_length").map(drop),
            "key `llama.embedding_length` is missing; expected an integer of 0 to 4294967295: convert the model again",
        ),
        (
            gguf.require_tensor("output.weight", &[3, 4]).map(drop),
            "tensor `output.weight` is missing; expected shape [3, 4]: use the complete model file",
        ),
        (
            gguf.require_tensor("token_embd.weight", &[4, 3]).map(drop),
            "tensor `token_embd.weight` has shape [3, 4]; the metadata expects [4, 3]",
        ),
    ];
    for (result, expected) in message_start {
        assert_eq!(result.unwrap_err().to_string(), expected);
    }
    let nan = parse(&small().f32("k", f32::NAN)).unwrap();
    assert!(nan.f32("k").is_err());
    let absent = parse(&small().without("general.architecture")).unwrap();
    assert!(absent.architecture().is_err());
}

#[test]
fn hostile_headers_are_rejected() {
    let huge = u64::MAX.to_le_bytes();
    let array = |kind: u32, length: u64, rest: &[u8]| {
        [&kind.to_le_bytes()[..], &length.to_le_bytes()[..], rest].concat()
    };
    let base = small();
    let cases = [
        (base.clone().duplicate("llama.block_count"), "key `llama.block_count` occurs twice"),
        (
            base.clone().tensor("output_norm.weight", &[4], 0, vec![0; 16]),
            "tensor `output_norm.weight` occurs twice",
        ),
        (base.clone().raw("k", 8, &huge), "key `k` holds a string of 18446744073709551615 bytes"),
        (base.clone().raw("k", 8, &array(2, 0, b"")[..8]), "the GGUF file"),
        (base.clone().raw("k", 9, &array(0, u64::MAX, b"")), "key `k` is an array of 18446744073709551615"),
        (base.clone().raw("k", 9, &array(8, 1 << 40, b"")), "key `k` is an array of 1099511627776"),
        (base.clone().raw("k", 9, &array(9, 1, b"")), "key `k` is an array of arrays"),
        (base.clone().raw("k", 9, &array(77, 1, b"")), "key `k` has value type 77"),
        (base.clone().raw("k", 13, b""), "key `k` has value type 13"),
        (base.clone().raw("k", 7, &[2]), "key `k` holds the bool 2; expected 0 or 1"),
        (
            base.clone().raw("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]),
            "key `k` holds a string that is not UTF-8",
        ),
        (base.clone().u32("a\0b", 1), "the GGUF file is invalid: the name of key 7 is `a\\x00b`"),
        (base.clone().u32("", 1), "the GGUF file is invalid: the name of key 7 is ``"),
        (
            base.clone().u32(&"k".repeat(2000), 1),
            "the GGUF file is invalid: the name of key 7 takes 2000 bytes",
        ),
        (base.clone().u32("general.alignment", 0), "key `general.alignment` is 0; expected a power"),
        (base.clone().u32("general.alignment", 48), "key `general.alignment` is 48; expected"),
        (base.clone().u32("general.alignment", 1 << 31), "key `general.alignment` is 2147483648; expected"),
        (
            base.clone().text("general.alignment", "32"),
            "key `general.alignment` is the string `32`; expected a u32",
        ),
    ];
    for (writer, expected) in cases {
        let message = parse_error(&writer);
        assert!(message.starts_with(expected), "{message}\nexpected {expected}");
    }
    for (at, expected) in [(8, "tensors"), (16, "keys")] {
        let mut file = small().build();
        file[at..at + 8].copy_from_slice(&huge);
        let message = Gguf::parse(Bytes::Owned(file)).unwrap_err().to_string();
        let message_start = format!("the GGUF file declares 18446744073709551615 {expected}; expected ");
        assert!(message.starts_with(&message_start), "{message}");
    }
}

#[test]
fn hostile_tensors_are_rejected() {
    type Change = fn(&mut write::RawTensor);
    let cases: [(Change, &str); 17] = [
        (|t| t.dimensions = vec![], "has 0 dimensions; expected 1 to 4"),
        (|t| t.dimensions = vec![32; 5], "has 5 dimensions; expected 1 to 4"),
        (
            |t| t.dimensions = vec![64, u64::MAX],
            "has shape [18446744073709551615, 64]; expected rows of whole",
        ),
        (
            |t| t.dimensions = vec![1 << 33, 1 << 33],
            "has shape [8589934592, 8589934592]; expected rows of whole",
        ),
        (
            |t| t.dimensions = vec![64, 0],
            "has shape [0, 64]; expected rows of whole Q4_0 blocks (32 elements)",
        ),
        (
            |t| t.dimensions = vec![48, 2],
            "has shape [2, 48]; expected rows of whole Q4_0 blocks (32 elements)",
        ),
        (|t| t.dimensions = vec![64, 3], "takes 108 bytes from offset 64 of the data"),
        (|t| t.offset = 32, "overlaps tensor `output_norm.weight`"),
        (|t| t.offset = 65, "lies at offset 65; expected a multiple of the alignment, 32"),
        (|t| t.offset = 1 << 30, "takes 72 bytes from offset 1073741824 of the data"),
        (|t| t.offset = u64::MAX - 31, "takes 72 bytes from offset 18446744073709551584 of the data"),
        (
            |t| t.code = 34,
            "has type TQ1_0; expected one of F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, \
             Q6_K, IQ4_NL, IQ4_XS, BF16, MXFP4: use a file with these types",
        ),
        (|t| t.code = 35, "has type TQ2_0; expected one of F32, "),
        (|t| t.code = 16, "has type IQ2_XXS; expected one of F32, "),
        (|t| t.code = 18, "has type IQ3_XXS; expected one of F32, "),
        (|t| t.code = 19, "has type IQ1_S; expected one of F32, "),
        (|t| t.code = 40, "has type NVFP4; expected one of F32, "),
    ];
    for (change, expected) in cases {
        let message = parse_error(&small().last(change));
        let message_start = format!("tensor `blk.0.ffn_up.weight` {expected}");
        assert!(message.starts_with(&message_start), "{message}\nexpected {message_start}");
    }
    let message = parse_error(&small().last(|t| t.code = 4_000_000_000));
    assert!(message.contains("has type 4000000000; expected one of"), "{message}");
}

#[test]
fn other_formats_and_versions_are_rejected() {
    let with = |at: usize, bytes: &[u8]| {
        let mut file = small().build();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    let cases = [
        (vec![], "the GGUF file starts with fewer than four bytes; expected `GGUF`"),
        (b"PK\x03\x04....".to_vec(), "the GGUF file starts with `PK\\x03\\x04`; expected `GGUF`"),
        (with(4, &[1, 0, 0, 0]), "the GGUF file is of version 1; expected 2 or 3"),
        (
            with(4, &[0, 0, 0, 3]),
            "the GGUF file is of version 50331648, in big-endian order; expected 2 or 3",
        ),
    ];
    for (file, expected) in cases {
        let message = Gguf::parse(Bytes::Owned(file)).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn truncated_files_are_rejected_at_every_length() {
    let file = small().build();
    for end in 0..file.len() {
        let error = Gguf::parse(Bytes::Owned(file[..end].to_vec())).unwrap_err().to_string();
        assert!(error.contains("; ") || error.contains(": "), "{error}");
    }
    assert!(Gguf::parse(Bytes::Owned(file)).is_ok());
}

#[test]
fn quoted_names_are_escaped_and_shortened() {
    assert_eq!(quoted("a\n\u{1b}[0m"), "`a\\n\\u{1b}[0m`");
    assert_eq!(quoted(&"x".repeat(1000)), format!("`{}… (1000 bytes)`", "x".repeat(224)));
}

/// Part `number` of `count` of a model with four tensors of 16 bytes, named `tensors`.
fn part(number: u16, count: u16, tensors: &[&str]) -> Writer {
    let keys = if number == 0 { Writer::new("llama") } else { Writer::default() };
    let keys = keys
        .raw(parts::NUMBER, 2, &number.to_le_bytes())
        .raw(parts::COUNT, 2, &count.to_le_bytes())
        .raw(parts::TENSORS, 5, &4_i32.to_le_bytes());
    tensors.iter().fold(keys, |file, name| file.tensor(name, &[4], 0, vec![name.as_bytes()[0]; 16]))
}

fn parse_parts(files: &[Writer]) -> Result<Gguf, GgufError> {
    Gguf::parse_parts(files.iter().map(|file| Bytes::Owned(file.build())).collect())
}

#[test]
fn tensors_are_read_from_their_parts() {
    let files = [part(0, 3, &[]), part(1, 3, &["a", "b"]), part(2, 3, &["c", "d"])];
    let gguf = parse_parts(&files).unwrap();
    assert_eq!(gguf.architecture().unwrap(), "llama");
    assert_eq!(gguf.tensor_names().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    for name in ["a", "b", "c", "d"] {
        assert_eq!(gguf.require_tensor(name, &[4]).unwrap().data, [name.as_bytes()[0]; 16]);
        gguf.forget(name);
    }
    let first = files[0].build().len();
    assert!(gguf.header_bytes() > first + files[1].build().len() + files[2].build().len() - 2 * 64 - 64);
    assert!(parse_parts(&[part(0, 1, &["a", "b", "c", "d"])]).is_ok(), "one part");
}

#[test]
fn parts_of_different_models_are_rejected() {
    let (first, second) = (part(0, 2, &["a", "b"]), part(1, 2, &["c", "d"]));
    let tensors = |count: i32| part(1, 2, &["c", "d"]).raw(parts::TENSORS, 5, &count.to_le_bytes());
    let cases = [
        (vec![first.clone()], "key `split.count` is 2: the file is part 1 of 2; expected the first part"),
        (vec![second.clone()], "key `split.count` is 2: the file is part 2 of 2; expected the first part"),
        (
            vec![second.clone(), first.clone()],
            "part 1 of 2: key `split.no` is 1; expected 0 by the file's name and place",
        ),
        (
            vec![first.clone(), part(1, 3, &["c", "d"])],
            "part 2 of 2: key `split.count` is 3; expected 2 by the file's name and place",
        ),
        (
            vec![first.clone(), second.clone().text("general.architecture", "phi3")],
            "part 2 of 2: key `general.architecture` is `phi3`; the first part has `llama`",
        ),
        (
            vec![first.clone(), tensors(5)],
            "part 2 of 2: key `split.tensors.count` is 5, and 4 in the first part; expected one number",
        ),
        (vec![first.clone(), tensors(-1)], "part 2 of 2: key `split.tensors.count` is the integer -1; "),
        (
            vec![first.clone(), second.clone().without(parts::TENSORS)],
            "part 2 of 2: key `split.tensors.count` is missing, and 4 in the first part; ",
        ),
        (
            vec![first.clone(), part(1, 2, &["c", "a"])],
            "part 2 of 2: tensor `a` is in part 1 as well; expected each tensor once",
        ),
        (
            vec![first.clone(), part(1, 2, &["c"])],
            "key `split.tensors.count` is 4; the parts have 3 tensors: use all parts of one model",
        ),
        (
            vec![first.clone(), second.last(|tensor| tensor.code = 34)],
            "part 2 of 2: tensor `d` has type TQ1_0; expected one of F32, F16, Q4_0, ",
        ),
    ];
    for (files, expected) in cases {
        let message = parse_parts(&files).unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
}
