use super::*;

fn version() -> Version {
    Arc::new(())
}

fn key(tenant: u8, key: u64, request: &[u8], version: &Version) -> StoreKey {
    StoreKey {
        tenant: Tenant::Address([10, 0, 0, tenant].into()),
        key: hash(&[&key.to_le_bytes()]),
        request: hash(&[request]),
        version: version.clone(),
    }
}

fn response(bytes: usize) -> StoredResponse {
    StoredResponse { status: StatusCode::OK, headers: HeaderMap::new(), body: vec![b'x'; bytes].into() }
}

/// Length of the body returned, if a new response would have `bytes`.
async fn get_or_judge(store: &ResponseStore, key: &StoreKey, bytes: usize, is_complete: bool) -> usize {
    let judge = async { Ok(JudgedResponse { response: response(bytes), is_complete }) };
    store.get_or_judge(key, judge).await.unwrap().body.len()
}

#[tokio::test]
async fn stored_response_needs_same_request_and_version() {
    let (store, one, other) = (ResponseStore::default(), version(), version());
    assert_eq!(get_or_judge(&store, &key(1, 1, b"a", &one), 1, true).await, 1);
    assert_eq!(get_or_judge(&store, &key(1, 1, b"a", &one), 2, true).await, 1);
    assert_eq!(get_or_judge(&store, &key(2, 1, b"a", &one), 3, true).await, 3, "another tenant");
    let judge = async { Ok(JudgedResponse { response: response(4), is_complete: true }) };
    let error = store.get_or_judge(&key(1, 1, b"b", &one), judge).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        get_or_judge(&store, &key(1, 1, b"a", &other), 5, true).await,
        5,
        "another version judges again"
    );
    assert_eq!(get_or_judge(&store, &key(1, 1, b"a", &other), 6, true).await, 5);
    assert_eq!(store.state().entries, 2);
}

#[tokio::test]
async fn incomplete_failed_and_long_responses_are_not_stored() {
    let (store, version) = (ResponseStore::default(), version());
    let key = key(1, 1, b"a", &version);
    assert_eq!(get_or_judge(&store, &key, 1, false).await, 1);
    assert!(store.get_or_judge(&key, async { Err(ApiError::deadline()) }).await.is_err());
    assert_eq!(
        get_or_judge(&store, &key, MAX_STORED_RESPONSE_BYTES + 1, true).await,
        MAX_STORED_RESPONSE_BYTES + 1
    );
    assert_eq!(get_or_judge(&store, &key, 2, true).await, 2);
    assert_eq!(get_or_judge(&store, &key, 3, true).await, 2);
}

#[tokio::test]
async fn tenant_within_its_share_loses_nothing() {
    let (store, version) = (ResponseStore::default(), version());
    for number in 0..100 {
        get_or_judge(&store, &key(1, number, b"a", &version), 1, true).await;
    }
    for number in 0..3 * MAX_STORED_RESPONSES as u64 {
        get_or_judge(&store, &key(2, number, b"a", &version), 2, true).await;
    }
    {
        let state = store.state();
        assert_eq!(state.entries, MAX_STORED_RESPONSES);
        assert_eq!(state.tenants[&key(1, 0, b"", &version).tenant].by_key.len(), 100);
    }
    for number in 0..100 {
        assert_eq!(get_or_judge(&store, &key(1, number, b"a", &version), 3, true).await, 1, "{number}");
    }
}

#[tokio::test]
async fn stored_bytes_are_bounded_and_counted() {
    let (store, version) = (ResponseStore::default(), version());
    get_or_judge(&store, &key(1, 0, b"a", &version), 7, true).await;
    for number in 0..300 {
        get_or_judge(&store, &key(2, number, b"a", &version), MAX_STORED_RESPONSE_BYTES, true).await;
    }
    {
        let state = store.state();
        assert!(
            state.bytes <= MAX_STORED_BYTES && state.bytes > MAX_STORED_BYTES - 2 * MAX_STORED_RESPONSE_BYTES,
            "{}",
            state.bytes
        );
        let stores = state.tenants.values();
        assert_eq!(state.bytes, stores.clone().map(|store| store.bytes).sum::<usize>());
        assert_eq!(state.entries, stores.map(|store| store.by_key.len()).sum::<usize>());
    }
    assert_eq!(
        get_or_judge(&store, &key(1, 0, b"a", &version), 1, true).await,
        7,
        "the small response is still stored"
    );
}

#[tokio::test]
async fn stored_responses_expire() {
    let (store, version) = (ResponseStore::default(), version());
    get_or_judge(&store, &key(1, 1, b"a", &version), 7, true).await;
    get_or_judge(&store, &key(2, 1, b"a", &version), 7, true).await;
    let mut state = store.state();
    state.remove_expired(Instant::now() + MAX_STORED_TIME);
    assert_eq!((state.tenants.len(), state.entries, state.bytes), (0, 0, 0));
}

#[test]
fn hash_depends_on_piece_boundaries() {
    assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
}
