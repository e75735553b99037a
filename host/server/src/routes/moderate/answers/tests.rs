use super::*;

fn version() -> Version {
    Arc::new(())
}

fn asked(tenant: u8, key: u64, request: &[u8], version: &Version) -> Asked {
    Asked {
        tenant: Tenant::Address([10, 0, 0, tenant].into()),
        key: hash(&[&key.to_le_bytes()]),
        request: hash(&[request]),
        version: version.clone(),
    }
}

fn answer(bytes: usize) -> Answer {
    Answer { status: StatusCode::OK, headers: HeaderMap::new(), body: vec![b'x'; bytes].into() }
}

/// Length of the body returned, if a new response would have `bytes`.
async fn keep(answers: &Answers, asked: &Asked, bytes: usize, is_complete: bool) -> usize {
    let judge = async { Ok(Judged { answer: answer(bytes), is_complete }) };
    answers.keep(asked, judge).await.unwrap().body.len()
}

#[tokio::test]
async fn kept_answer_is_for_same_request_and_version() {
    let (answers, one, other) = (Answers::default(), version(), version());
    assert_eq!(keep(&answers, &asked(1, 1, b"a", &one), 1, true).await, 1);
    assert_eq!(keep(&answers, &asked(1, 1, b"a", &one), 2, true).await, 1);
    assert_eq!(keep(&answers, &asked(2, 1, b"a", &one), 3, true).await, 3, "another tenant");
    let judge = async { Ok(Judged { answer: answer(4), is_complete: true }) };
    let error = answers.keep(&asked(1, 1, b"b", &one), judge).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(keep(&answers, &asked(1, 1, b"a", &other), 5, true).await, 5, "another version judges anew");
    assert_eq!(keep(&answers, &asked(1, 1, b"a", &other), 6, true).await, 5);
    assert_eq!(answers.kept().entries, 2);
}

#[tokio::test]
async fn incomplete_failed_and_long_answers_are_not_kept() {
    let (answers, version) = (Answers::default(), version());
    let asked = asked(1, 1, b"a", &version);
    assert_eq!(keep(&answers, &asked, 1, false).await, 1);
    assert!(answers.keep(&asked, async { Err(ApiError::deadline()) }).await.is_err());
    assert_eq!(keep(&answers, &asked, LONGEST + 1, true).await, LONGEST + 1);
    assert_eq!(keep(&answers, &asked, 2, true).await, 2);
    assert_eq!(keep(&answers, &asked, 3, true).await, 2);
}

#[tokio::test]
async fn tenant_within_its_share_loses_nothing() {
    let (answers, version) = (Answers::default(), version());
    for key in 0..100 {
        keep(&answers, &asked(1, key, b"a", &version), 1, true).await;
    }
    for key in 0..3 * MAX as u64 {
        keep(&answers, &asked(2, key, b"a", &version), 2, true).await;
    }
    {
        let kept = answers.kept();
        assert_eq!(kept.entries, MAX);
        assert_eq!(kept.tenants[&asked(1, 0, b"", &version).tenant].by_key.len(), 100);
    }
    for key in 0..100 {
        assert_eq!(keep(&answers, &asked(1, key, b"a", &version), 3, true).await, 1, "{key}");
    }
}

#[tokio::test]
async fn kept_bytes_are_bounded_and_counted() {
    let (answers, version) = (Answers::default(), version());
    keep(&answers, &asked(1, 0, b"a", &version), 7, true).await;
    for key in 0..300 {
        keep(&answers, &asked(2, key, b"a", &version), LONGEST, true).await;
    }
    {
        let kept = answers.kept();
        assert!(kept.bytes <= MAX_BYTES && kept.bytes > MAX_BYTES - 2 * LONGEST, "{}", kept.bytes);
        let stores = kept.tenants.values();
        assert_eq!(kept.bytes, stores.clone().map(|store| store.bytes).sum::<usize>());
        assert_eq!(kept.entries, stores.map(|store| store.by_key.len()).sum::<usize>());
    }
    assert_eq!(
        keep(&answers, &asked(1, 0, b"a", &version), 1, true).await,
        7,
        "the small one is still there"
    );
}

#[tokio::test]
async fn answers_are_forgotten_after_their_time() {
    let (answers, version) = (Answers::default(), version());
    keep(&answers, &asked(1, 1, b"a", &version), 7, true).await;
    keep(&answers, &asked(2, 1, b"a", &version), 7, true).await;
    let mut kept = answers.kept();
    kept.forget(Instant::now() + KEPT);
    assert_eq!((kept.tenants.len(), kept.entries, kept.bytes), (0, 0, 0));
}

#[test]
fn pieces_are_told_apart() {
    assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
}
