//! Content and transfer codings: bodies are read as they are, and compressed ones are rejected.

use axum::http::{HeaderMap, HeaderValue, header};
use infer_engine::text::{QUOTE_BYTES, excerpt};

use crate::error::ApiError;

/// Rejects a body whose `content-encoding` has a coding other than `identity`.
///
/// # Errors
///
/// 415 with the name of the coding.
pub(super) fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let mut codings = value.split(',').map(str::trim).filter(|coding| !coding.is_empty());
        if let Some(coding) = codings.find(|coding| !coding.eq_ignore_ascii_case("identity")) {
            let coding = excerpt(coding, QUOTE_BYTES).to_ascii_lowercase();
            let message = format!(
                "the body's `content-encoding` is `{coding}`, expected `identity`: bodies are not decompressed; \
                 send it uncompressed"
            );
            return Err(ApiError::unsupported_encoding(message));
        }
    }
    Ok(())
}

/// Rejects a body whose transfer coding is not a single `chunked`: its chunks would contain
/// compressed bytes, which no route expects.
///
/// # Errors
///
/// 501 with the codings (RFC 9112, section 6.1).
pub(super) fn check_transfer(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut values = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    match (values.next(), values.next()) {
        (None, _) => Ok(()),
        (Some(value), None) if is_chunked(value) => Ok(()),
        (Some(value), _) => {
            let value = String::from_utf8_lossy(value.as_bytes());
            let message = format!(
                "the body's `transfer-encoding` is `{}`, expected a single `chunked`: no other transfer coding \
                 is supported",
                excerpt(&value, QUOTE_BYTES)
            );
            Err(ApiError::unsupported_transfer(message))
        }
    }
}

/// Rejects a body that starts like a compressed one, although no header says so. JSON, images and
/// forms never start like that.
///
/// # Errors
///
/// 415 with the name of the coding.
pub(super) fn check_body(body: &[u8]) -> Result<(), ApiError> {
    let coding = match body {
        [0x1f, 0x8b, 0x08, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        // Method 8, a window of at most 32 KiB, and a valid header checksum (RFC 1950).
        [0x78, flags, ..] if (0x7800 | u16::from(*flags)).is_multiple_of(31) => "deflate",
        _ => return Ok(()),
    };
    let message = format!(
        "the body looks compressed with {coding}, but has no `content-encoding`; bodies are not decompressed; \
         send it uncompressed"
    );
    Err(ApiError::unsupported_encoding(message))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[test]
    fn only_identity_is_accepted() {
        let cases: [(&[&str], Option<&str>); 12] = [
            (&[], None),
            (&["identity"], None),
            (&["Identity"], None),
            (&[""], None),
            (&["identity, ,identity"], None),
            (&["gzip"], Some("`gzip`")),
            (&["GZip"], Some("`gzip`")),
            (&["identity, br"], Some("`br`")),
            (&["identity", "zstd"], Some("`zstd`")),
            (&["deflate"], Some("`deflate`")),
            (&["x-gzip"], Some("`x-gzip`")),
            (&["aws-chunked"], Some("`aws-chunked`")),
        ];
        for (values, expected) in cases {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
            }
            match (check(&headers), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(coding)) => {
                    assert_eq!(error.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
                    assert!(error.to_string().contains(coding), "{values:?}: {error}");
                }
                (found, _) => panic!("{values:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn chunked_is_the_only_transfer_coding() {
        let cases: [(&[&str], bool); 9] = [
            (&[], true),
            (&["chunked"], true),
            (&[" Chunked"], true),
            (&["gzip, chunked"], false),
            (&["gzip", "chunked"], false),
            (&["chunked", "chunked"], false),
            (&["chunked, chunked"], false),
            (&["identity"], false),
            (&["xchunked"], false),
        ];
        for (values, expected) in cases {
            let headers = values.iter().map(|value| (header::TRANSFER_ENCODING, value.parse().unwrap()));
            let checked = check_transfer(&headers.collect());
            let status = checked.err().map(|error| error.status());
            assert_eq!(status, (!expected).then_some(StatusCode::NOT_IMPLEMENTED), "{values:?}");
        }
    }

    #[test]
    fn compressed_bodies_are_detected_by_magic_bytes() {
        let cases: [(&[u8], Option<&str>); 9] = [
            (b"", None),
            (b"{}", None),
            (b"x", None),
            (b"xyz", None),
            (b"\x1f\x8b\x08\0", Some("gzip")),
            (b"\x28\xb5\x2f\xfd", Some("zstd")),
            (b"\x78\x01", Some("deflate")),
            (b"\x78\x9c", Some("deflate")),
            (b"\x78\xda", Some("deflate")),
        ];
        for (body, expected) in cases {
            let found = check_body(body).err().map(|error| error.to_string());
            assert_eq!(found.is_some(), expected.is_some(), "{body:?}");
            assert!(found.unwrap_or_default().contains(expected.unwrap_or_default()), "{body:?}");
        }
    }
}
