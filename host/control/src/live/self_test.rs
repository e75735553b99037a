//! Self-tests of models and components before they are served: the tests of cards and those of the
//! configuration.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use infer_config::{ComponentTest, TestImage, data_url};
use infer_engine::{RunError, files};
use infer_sandbox::types::{Fault, Label, Part, Verdict};
use infer_sandbox::{CallError, Outcome, Request, World};
use tokio::time::sleep;

use crate::limits::{MAX_SELF_TEST_TIME, MAX_TEST_IMAGE_BYTES};
use crate::registry::{LoadedComponent, Registry};

/// Pause before a test is repeated that found the server busy.
const PAUSE: Duration = Duration::from_millis(20);

/// Input for a moderator without tests; any answer passes.
const TEXT: &str = "Hello there.";

/// Input for a classifier without tests: 8 by 8 pixels of grey, in PNG.
const PIXELS: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQAAAADsdIMmAAAADElEQVR4nGNgIB4AAABIAAGOmKtZAAAAAElFTkSuQmCC";

/// Number of tests that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tested {
    /// Tests of cards.
    pub models: usize,
    /// Tests of components, including the default test of a component that configures none.
    pub components: usize,
}

/// Tests the models and components of `registry` that `old` does not share.
///
/// # Errors
///
/// If a test fails; the error is that of the first.
pub async fn run(registry: &Registry, old: Option<&Registry>) -> anyhow::Result<Tested> {
    let mut tested = Tested::default();
    for version in registry.versions() {
        let served = old.is_some_and(|old| old.versions().any(|old| Arc::ptr_eq(old.model, version.model)));
        if !served {
            let passed = version.model.self_test(Instant::now() + MAX_SELF_TEST_TIME).await;
            tested.models += passed.with_context(|| version.config.at.to_string())?;
        }
    }
    let canary = |registry: &Registry| registry.canary.as_ref().map(|canary| canary.registry.clone());
    let known: Vec<_> = old
        .into_iter()
        .flat_map(|old| {
            let next = canary(old)
                .into_iter()
                .flat_map(|registry| registry.components.values().cloned().collect::<Vec<_>>());
            old.components.values().cloned().chain(next)
        })
        .collect();
    let next = canary(registry).into_iter().flat_map(|registry| registry.components.clone());
    let mut done: Vec<Arc<LoadedComponent>> = Vec::new();
    for (name, loaded) in registry.components.clone().into_iter().chain(next) {
        let served = known.iter().chain(&done).any(|known| Arc::ptr_eq(known, &loaded));
        if !served {
            done.push(loaded.clone());
            let (name, loaded) = (&name, &loaded);
            let config = &registry.config.components[name];
            let passed = component(loaded, &config.tests).await;
            let passed = passed.with_context(|| format!("component `{name}`"));
            tested.components += passed.with_context(|| config.at.to_string())?;
        }
    }
    Ok(tested)
}

async fn component(loaded: &LoadedComponent, tests: &[ComponentTest]) -> anyhow::Result<usize> {
    let request = Request::new(Arc::from("self-test"), Instant::now() + MAX_SELF_TEST_TIME);
    if tests.is_empty() {
        return unasked(loaded, &request).await;
    }
    for (index, test) in tests.iter().enumerate() {
        one(loaded, &request, test).await.with_context(|| format!("self-test {index}"))?;
    }
    Ok(tests.len())
}

/// Checks that a component without configured tests answers a default input.
async fn unasked(loaded: &LoadedComponent, request: &Request) -> anyhow::Result<usize> {
    let answered = match loaded.component.world() {
        World::Moderator => {
            let parts = [Part::Text(TEXT.to_owned())];
            patient(request, || loaded.component.moderate(request, &parts)).await.map(|_| ())
        }
        World::Classifier => {
            let image = STANDARD.decode(PIXELS).context("the image of self-tests")?;
            patient(request, || loaded.component.classify(request, &image, 1)).await.map(|_| ())
        }
        // A valid input depends on its models.
        World::Predictor => return Ok(0),
        // Any request may have side effects.
        World::Handler => return Ok(0),
    };
    match answered {
        // The component works, but accepts only other content.
        Err(CallError::Fault {
            fault: Fault::InvalidInput(_) | Fault::UnsupportedMedia(_) | Fault::TooLarge(_),
            ..
        })
        | Ok(()) => Ok(1),
        Err(error) => Err(error.into()),
    }
}

async fn one(loaded: &LoadedComponent, request: &Request, test: &ComponentTest) -> anyhow::Result<()> {
    let image = test.image.as_ref().map(read).transpose()?;
    match loaded.component.world() {
        World::Moderator => {
            if test.label.is_some() {
                bail!("`label` is for classifiers, and this is a moderator; expected `flagged` or `scores`");
            }
            let parts: Vec<_> =
                test.input.clone().map(Part::Text).into_iter().chain(image.map(Part::Image)).collect();
            let verdict = patient(request, || loaded.component.moderate(request, &parts)).await?;
            judge(test, &verdict)
        }
        World::Classifier => {
            if test.input.is_some() || test.flagged.is_some() || !test.scores.is_empty() {
                bail!("this is a classifier; expected only `image` and `label`");
            }
            let image = image.context("`image` is missing")?;
            let labels = patient(request, || loaded.component.classify(request, &image, 1)).await?;
            named(test, &labels)
        }
        World::Predictor => bail!("a predictor is tested by its models' cards only; remove this test"),
        World::Handler => {
            bail!("a handler has no tests, because its requests may have side effects; remove this test")
        }
    }
}

/// Repeats the call while the server is busy with requests.
async fn patient<T, F: Future<Output = Outcome<T>>>(
    request: &Request,
    ask: impl Fn() -> F,
) -> Result<T, CallError> {
    loop {
        match ask().await.result {
            Err(CallError::Busy { .. } | CallError::Fault { model: Some(RunError::Busy { .. }), .. })
                if Instant::now() < request.deadline =>
            {
                sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

fn judge(test: &ComponentTest, verdict: &Verdict) -> anyhow::Result<()> {
    if let Some(flagged) = test.flagged
        && flagged != verdict.flagged
    {
        bail!("`flagged` is {}, expected {flagged}", verdict.flagged);
    }
    for (category, &expected) in &test.scores {
        let found = verdict.scores.iter().find(|score| score.category == *category);
        let found = found.map(|score| f64::from(score.score));
        let found = found.with_context(|| format!("`{category}` has no score, expected {expected}"))?;
        // NaN is not possible here: such a score was rejected before.
        if (found - expected).abs() > test.tolerance {
            bail!("`{category}` scores {found}, expected {expected} ± {}", test.tolerance);
        }
    }
    Ok(())
}

fn named(test: &ComponentTest, labels: &[Label]) -> anyhow::Result<()> {
    let Some(expected) = &test.label else { return Ok(()) };
    match labels.first() {
        Some(label) if label.name == *expected => Ok(()),
        Some(label) => bail!("the label is `{}`, expected `{expected}`", label.name),
        None => bail!("no label was returned, expected `{expected}`"),
    }
}

fn read(image: &TestImage) -> anyhow::Result<Vec<u8>> {
    match image {
        TestImage::Data(url) => data_url::decode(url).context("`image`"),
        TestImage::Path(path) => files::read(path, MAX_TEST_IMAGE_BYTES)
            .with_context(|| format!("cannot read `{}`", path.display())),
    }
}
