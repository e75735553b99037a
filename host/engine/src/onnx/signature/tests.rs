//! Comparison of cards with files, and of tensors with both.

use super::*;
use crate::card;

/// A card with two inputs, (N, 2) of f32 and (N) of i64, and one output, (N, K) of f32.
fn card() -> Card {
    let text = r#"
        name = "m"
        task = "text-classification"
        format = "onnx"
        description = ""
        license = "MIT"
        source = ""
        batch_axis = 0
        files = [{ path = "model.onnx", role = "model", bytes = 1, sha256 = "SHA" }]
        inputs = [
            { name = "a", dtype = "f32", shape = ["N", 2] },
            { name = "b", dtype = "i64", shape = ["N"] },
        ]
        outputs = [{ name = "y", dtype = "f32", shape = ["N", "K"] }]
    "#;
    card::parse(&text.replace("SHA", &"0".repeat(64))).unwrap().0
}

/// A port; a negative size stands for a varying axis.
fn port(name: &str, dtypes: &'static [DType], shape: &[i32]) -> Port {
    let axis = |size: &i32| match usize::try_from(*size) {
        Ok(size) => Axis::Fixed(size),
        Err(_) => Axis::varying("?"),
    };
    let declared = dtypes.first().map_or("i8".to_owned(), ToString::to_string);
    Port { name: name.to_owned(), dtypes, declared, shape: Some(shape.iter().map(axis).collect()) }
}

fn inputs() -> Vec<Port> {
    // The order of the file differs from that of the card.
    vec![port("b", &[DType::I64], &[-1]), port("a", &[DType::F32], &[-1, 2])]
}

fn outputs() -> Vec<Port> {
    vec![port("y", &[DType::F32], &[-1, 5])]
}

#[test]
fn card_must_match_file() {
    const F32: &[DType] = &[DType::F32];
    const I64: &[DType] = &[DType::I64];
    let (a, b) = (|| port("a", F32, &[-1, 2]), || port("b", I64, &[-1]));
    let cases = [
        (vec![a(), b()], None),
        (vec![a(), port("b", &[DType::I32, DType::I64], &[-1])], None),
        (vec![Port { shape: None, ..a() }, b()], None),
        (vec![port("a", F32, &[-1, -1]), b()], None),
        (vec![a()], Some("the card lists input `b`, i64 (N); the file has `a`")),
        (
            vec![a(), b(), port("c", F32, &[3])],
            Some("the file has input `c`, f32 (3), which the card does not list"),
        ),
        (
            vec![port("a", F32, &[-1, 3]), b()],
            Some("input `a` is f32 (N, 2) in the card and f32 (?, 3) in the file"),
        ),
        (
            vec![port("a", F32, &[1, 2]), b()],
            Some("input `a` is f32 (N, 2) in the card and f32 (1, 2) in the file"),
        ),
        (
            vec![port("a", F32, &[-1]), b()],
            Some("input `a` is f32 (N, 2) in the card and f32 (?) in the file"),
        ),
        (vec![a(), port("b", F32, &[-1])], Some("input `b` is i64 (N) in the card and f32 (?) in the file")),
        (
            vec![a(), port("b", &[], &[-1])],
            Some("input `b` is i8 in the file, expected one of f16, f32, f64, bf16, u8, i32, i64"),
        ),
    ];
    for (ports, expected) in cases {
        // A card may declare a narrower output than the file, but not a wider one.
        let made = Signature::new(&card(), &ports, &[port("y", F32, &[-1, -1])]);
        assert_eq!(made.err().as_deref(), expected);
    }
    let wider = Signature::new(&card(), &inputs(), &outputs()).err();
    let expected = "output `y` is f32 (N, K) in the card and f32 (?, 5) in the file";
    assert_eq!(wider.as_deref(), Some(expected));
}

#[test]
fn batches_require_batch_axis_in_card() {
    let open = vec![port("y", &[DType::F32], &[-1, -1])];
    let unbatched = |card: &Card, outputs: &[Port]| {
        Signature::new(card, &inputs(), outputs).unwrap().unbatched().map(str::to_owned)
    };
    assert_eq!(unbatched(&card(), &open), None);
    // If the file does not declare the shape, the card decides.
    assert_eq!(unbatched(&card(), &[Port { shape: None, ..open[0].clone() }]), None);
    let mut silent = card();
    silent.batch_axis = None;
    let reason = unbatched(&silent, &open).unwrap();
    assert!(reason.starts_with("its card has no `batch_axis = 0`"), "{reason}");
    silent.outputs[0].shape[0] = Axis::Fixed(1);
    assert_eq!(unbatched(&silent, &open).unwrap(), "axis 0 of output `y` is always 1");
    silent.outputs[0].shape.clear();
    let scalar = [Port { shape: None, ..open[0].clone() }];
    assert_eq!(unbatched(&silent, &scalar).unwrap(), "output `y` is a scalar");
    // A file that fixes the batch axis contradicts the card.
    let fixed = vec![port("y", &[DType::F32], &[1, -1])];
    let message = Signature::new(&card(), &inputs(), &fixed).err().unwrap();
    assert_eq!(message, "output `y` is f32 (N, K) in the card and f32 (1, ?) in the file");
}

#[test]
fn varying_axes_are_bounded() {
    let signature = |x: &str, batch: &str| {
        let text = format!(
            "name = \"m\"\ntask = \"text-classification\"\nformat = \"onnx\"\ndescription = \"\"\nlicense = \"MIT\"\n\
             source = \"\"\n{batch}\nfiles = [{{ path = \"model.onnx\", role = \"model\", bytes = 1, sha256 = \"{}\" }}]\n\
             inputs = [{{ name = \"x\", dtype = \"u8\", shape = {x} }}]\n\
             outputs = [{{ name = \"y\", dtype = \"u8\", shape = [\"N\"] }}]\n",
            "0".repeat(64)
        );
        let (card, _) = card::parse(&text).unwrap();
        let open = |name| Port { shape: None, ..port(name, &[DType::U8], &[]) };
        Signature::new(&card, &[open("x")], &[open("y")]).unwrap()
    };
    let batch = "batch_axis = 0";
    let send = "send less data, or raise the axis's `max` in the model's card";
    let several = "split the rows into several jobs";
    let together = "the product of its varying axes is 129024, expected at most 65536; send less data, or set `max` of each \
                    of them in the model's card";
    let axis = |index, name, size, max, way_out| {
        Some(format!("axis {index} (`{name}`) is {size}, expected at most {max}; {way_out}"))
    };
    let cases: [(&str, &str, &[usize], Option<String>); 12] = [
        (r#"["N", 2]"#, batch, &[128, 2], None),
        (r#"["N", 2]"#, batch, &[129, 2], axis(0, "N", 129, 128, several)),
        (r#"[{ name = "N", max = 4 }, 2]"#, batch, &[5, 2], axis(0, "N", 5, 4, several)),
        (r#"["T", 2]"#, "", &[1_024, 2], None),
        (r#"["T", 2]"#, "", &[1_025, 2], axis(0, "T", 1_025, 1_024, send)),
        (r#"["N", "T"]"#, batch, &[1, 1_025], axis(1, "T", 1_025, 1_024, send)),
        (r#"["N", { name = "T", max = 30 }]"#, batch, &[128, 31], axis(1, "T", 31, 30, send)),
        (r#"["N", { name = "T", max = 5000 }]"#, batch, &[1, 5_000], None),
        (r#"["N", "T"]"#, batch, &[128, 512], None),
        (r#"["N", "T"]"#, batch, &[126, 1_024], Some(together.to_owned())),
        (r#"["H", "W"]"#, "", &[126, 1_024], Some(together.to_owned())),
        (r#"["N", { name = "T", max = 1024 }]"#, batch, &[126, 1_024], None),
    ];
    for (shape, batch, inputs, expected) in cases {
        let tensor = Tensor::from_slice(inputs, &vec![0_u8; inputs.iter().product()]).unwrap();
        let found = signature(shape, batch).arrange(vec![("x".to_owned(), tensor)]).err();
        assert_eq!(found, expected.map(|wrong| format!("input `x`: {wrong}")), "{shape} {inputs:?}");
    }
}

#[test]
fn inputs_must_match_card() {
    let signature = Signature::new(&card(), &inputs(), &[port("y", &[DType::F32], &[-1, -1])]).unwrap();
    let a = |shape: &[usize]| {
        let values = vec![0.5f32; shape.iter().product()];
        ("a".to_owned(), Tensor::from_slice(shape, &values).unwrap())
    };
    let b = |rows: usize| ("b".to_owned(), Tensor::from_slice(&[rows], &vec![3i64; rows]).unwrap());
    let long = ("ä".repeat(1000), b(1).1);
    let cases = [
        (vec![a(&[1, 2])], "input `b` is missing, expected i64 (N)".to_owned()),
        (vec![a(&[1, 2]), b(1), b(1)], "input `b` is given twice".to_owned()),
        (vec![a(&[1, 3]), b(1)], "input `a` is f32 (1, 3), expected f32 (N, 2)".to_owned()),
        (vec![a(&[2]), b(1)], "input `a` is f32 (2), expected f32 (N, 2)".to_owned()),
        (
            vec![a(&[0, 2]), b(1)],
            "input `a` is f32 (0, 2), which has no elements, expected f32 (N, 2)".to_owned(),
        ),
        (vec![("b".to_owned(), a(&[1]).1)], "input `b` is f32 (1), expected i64 (N)".to_owned()),
        (vec![long], format!("unknown input `{}… (2000 bytes)`, expected `b`, `a`", "ä".repeat(112))),
    ];
    for (inputs, expected) in cases {
        assert_eq!(signature.arrange(inputs).unwrap_err(), expected);
    }

    let arranged = signature.arrange(vec![a(&[3, 2]), b(3)]).unwrap();
    let dtypes: Vec<_> = arranged.inputs.iter().map(Tensor::dtype).collect();
    assert_eq!((dtypes, arranged.joins), (vec![DType::I64, DType::F32], Joins::Rows(3)));
    // The model decides about inputs with different numbers of rows, but they do not join a batch.
    assert_eq!(signature.arrange(vec![a(&[3, 2]), b(2)]).unwrap().joins, Joins::Never);
}

#[test]
fn outputs_must_match_card() {
    let signature = Signature::new(&card(), &inputs(), &[port("y", &[DType::F32], &[-1, -1])]).unwrap();
    let good = Tensor::from_slice(&[1, 2], &[0.5f32, 0.5]).unwrap();
    let bad = Tensor::from_slice(&[2], &[1i64, 2]).unwrap();
    assert_eq!(signature.check(std::slice::from_ref(&good)), Ok(()));
    assert_eq!(signature.check(&[]), Err("0 outputs were computed, expected 1".to_owned()));
    assert_eq!(signature.check(&[bad]), Err("output `y` is i64 (2), expected f32 (N, K)".to_owned()));
    assert_eq!(signature.name(vec![good.clone()]), [("y".to_owned(), good)]);
}
