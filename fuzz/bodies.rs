//! What is done with any bytes, each for a target of its own: under cargo-fuzz with ever new ones,
//! and in `make test` with those of `fuzz/seeds`. A body panics where a promise is broken.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use guest_sdk::image::{Recipe, Viewer};
use guest_sdk::settings::Settings;
use infer_config::Config;
use infer_config::Origin;
use infer_config::Resolved;
use infer_control::registry::App;
use infer_engine::{Card, DType, Tensor};
use infer_sandbox::types::Part;
use infer_sandbox::{CallError, Request};
use tokio::runtime::Runtime;

/// A configuration is refused with its mistakes, or can be told.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(text, &Origin::Builtin) {
        Ok(config) => {
            let told = Resolved::of(&config);
            assert!(told.changes(&told).is_empty(), "a configuration differs from itself");
        }
        Err(mistakes) => assert!(!mistakes.to_string().is_empty(), "a mistake has no words"),
    }
}

/// A card is refused with a reason, or has what a card must have.
pub(crate) fn card(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Card::parse(text) {
        Ok(card) => assert!(!card.model_file().path.is_empty(), "a card without a model's file"),
        Err(reason) => assert!(!reason.is_empty(), "a refusal without a reason"),
    }
}

/// A file is refused, or has views that become finite numbers of a model's shape.
pub(crate) fn image(bytes: &[u8]) {
    const MAX_PIXELS: u32 = 1 << 20;
    const MAX_VIEWS: u32 = 5;
    static RECIPES: LazyLock<[Recipe; 2]> = LazyLock::new(|| {
        [("NCHW", "1,3,32,24", "bicubic"), ("NHWC", "1,24,32,3", "bilinear")].map(
            |(layout, shape, filter)| {
                let facts = [
                    ("dtype", "f32"),
                    ("layout", layout),
                    ("shape", shape),
                    ("image.color", "RGB"),
                    ("image.crop", "0.875"),
                    ("image.filter", filter),
                    ("image.mean", "127"),
                    ("image.std", "128"),
                ];
                let mut pairs: Vec<_> = facts
                    .iter()
                    .map(|(key, value)| (format!("models.image.input.{key}"), (*value).to_owned()))
                    .collect();
                pairs.push(("models.image.task".to_owned(), "image-classification".to_owned()));
                let settings = Settings::from_pairs(pairs);
                Recipe::from_card(&settings.card("image").expect("a card")).expect("a recipe")
            },
        )
    });
    for recipe in &*RECIPES {
        let mut views = 0;
        let seen = Viewer::new(recipe, MAX_PIXELS, MAX_VIEWS).show(bytes, &mut |view| {
            let mut numbers = Vec::new();
            recipe.normalise(view, &mut numbers);
            assert_eq!(numbers.len(), recipe.shape(1).map(|axis| axis as usize).iter().product::<usize>());
            assert!(numbers.iter().all(|number| number.abs() <= 1.0), "a number that no pixel makes");
            views += 1;
            Ok(())
        });
        let Ok(seen) = seen else { return };
        assert!((1..=MAX_VIEWS).contains(&views), "{views} views");
        assert!((1..=seen.of_frames).contains(&seen.frames), "{seen:?}");
    }
}

/// Type, rank and axes from the first bytes, data from the rest: a tensor is what it says, or is
/// refused.
pub(crate) fn tensor(bytes: &[u8]) {
    const TYPES: [DType; 7] =
        [DType::F16, DType::F32, DType::F64, DType::BF16, DType::U8, DType::I32, DType::I64];
    const AXES: [usize; 8] = [0, 1, 2, 3, 7, 255, 1 << 32, usize::MAX];
    let [ty, rank, rest @ ..] = bytes else { return };
    let Some((axes, data)) = rest.split_at_checked(usize::from(rank % 9)) else { return };
    let (ty, shape) = (TYPES[usize::from(*ty) % 7], axes.iter().map(|&axis| AXES[usize::from(axis) % 8]));
    let shape: Vec<_> = shape.collect();
    let expected = shape.iter().try_fold(ty.size_bytes(), |size, &axis| size.checked_mul(axis));
    match Tensor::new(ty, shape.clone(), data.to_vec()) {
        Ok(tensor) => {
            assert_eq!(expected, Some(data.len()), "{shape:?}");
            assert_eq!((tensor.dtype(), tensor.shape(), tensor.data()), (ty, &shape[..], data));
            assert_eq!(tensor.to_vec::<f32>().is_ok(), ty == DType::F32);
            assert_eq!(tensor.to_vec::<i64>().is_ok(), ty == DType::I64);
        }
        Err(_) => assert_ne!(expected, Some(data.len()), "{ty} {shape:?}"),
    }
}

/// Calls of wasi:nn in any order: the guest answers or is stopped, nothing of it stays, and the
/// next guest is served.
pub(crate) fn nn(bytes: &[u8]) {
    const BUDGET: usize = 1 << 20;
    static SERVED: LazyLock<(Runtime, App)> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = if root.ends_with("fuzz") { root.join("..") } else { root.to_owned() };
        // Where the build found them, which scripts/fuzz.sh says for a target.
        let guest = Path::new(env!("INFER_GUESTS")).join("hostile.wasm");
        let text = format!(
            "[server]\nonnxruntime = \"off\"\n[models.rows]\nsource = {:?}\nsessions = 1\n[components.script]\nsource = {guest:?}\n\
             models = {{ rows = \"rows\" }}\nsettings = {{ attack = \"script\" }}\n\
             limits = {{ tensor_bytes = {BUDGET}, handles = 64, log_lines = 4 }}\n",
            root.join("host/engine/tests/data/rows"),
        );
        let config = Config::parse(&text, &Origin::File(root.join("infer.toml"))).expect("no mistakes");
        (runtime, App::load(config).expect("all of it loads"))
    });
    let (runtime, app) = &*SERVED;
    let component = &app.components["script"].component;
    let judge = |script: &[u8]| {
        let request = Request::new(Arc::from("fuzz"), Instant::now() + Duration::from_secs(10));
        let outcome = runtime.block_on(component.moderate(&request, &[Part::Image(script.to_vec())]));
        assert!(outcome.usage.tensor_bytes_peak <= BUDGET, "{:?}", outcome.usage);
        assert_eq!(app.sandbox.memory().held(), 0, "memory of a guest that has gone");
        match outcome.result {
            Ok(verdict) => Some(verdict),
            Err(CallError::Stopped { .. }) => None,
            Err(error) => panic!("a script ends in an answer, or is stopped: {error}"),
        }
    };
    judge(bytes);
    // Tensors that fit, the model, a context, a computation, its outputs.
    let verdict = judge(&[11, 1, 0, 3, 0, 4, 3, 1, 2, 3, 0, 5, 0]).expect("a good guest is served");
    assert_eq!(verdict.gaps[0].reason, "5 calls");
}
