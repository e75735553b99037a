//! The image in a request: the body itself, or a file in a form (RFC 7578).

use axum::body::Bytes;
use axum::extract::multipart::Field;
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::{HeaderMap, header};
use infer_engine::text::{QUOTE_BYTES, excerpt};

use crate::error::ApiError;

/// Reads the image of `request`: its body, or the first file of its form.
///
/// # Errors
///
/// 415 for another content type, 400 if there is no image.
pub(super) async fn read_image(request: Request) -> Result<Bytes, ApiError> {
    let kind = content_type(request.headers());
    let image = match &*kind {
        "multipart/form-data" => first_file(Multipart::from_request(request, &()).await?).await?,
        // The third is curl's default for --data-binary.
        "" | "application/octet-stream" | "application/x-www-form-urlencoded" | "binary/octet-stream" => {
            Bytes::from_request(request, &()).await?
        }
        kind if kind.starts_with("image/") => Bytes::from_request(request, &()).await?,
        kind => {
            let message = format!(
                "content type `{}`, expected the image's bytes (image/…, application/octet-stream) or \
                 multipart/form-data with one file",
                excerpt(kind, QUOTE_BYTES)
            );
            return Err(ApiError::unsupported_media(message));
        }
    };
    if image.is_empty() {
        return Err(ApiError::invalid("", "the body is empty; expected the bytes of an image"));
    }
    Ok(image)
}

/// Returns the first part with a file name or an image type, or the only part. Browsers send an
/// empty part for a field without a chosen file; it is skipped.
async fn first_file(mut form: Multipart) -> Result<Bytes, ApiError> {
    let mut only = None;
    let mut parts = 0;
    while let Some(field) = form.next_field().await? {
        parts += 1;
        if is_file(&field) {
            let bytes = field.bytes().await?;
            if !bytes.is_empty() {
                return Ok(bytes);
            }
        } else if parts == 1 {
            only = Some(field.bytes().await?);
        } else {
            // Other parts are read and dropped.
            only = None;
        }
    }
    only.filter(|bytes| parts == 1 && !bytes.is_empty()).ok_or_else(|| {
        let message = format!(
            "no image among the {parts} parts of the form; expected a part with a file name, or of the type \
             image/… or application/octet-stream"
        );
        ApiError::invalid("", message)
    })
}

fn is_file(field: &Field<'_>) -> bool {
    let kind = essence(field.headers().get(header::CONTENT_TYPE).map_or(b"", |value| value.as_bytes()));
    kind.starts_with("image/")
        || kind == "application/octet-stream"
        || field
            .headers()
            .get(header::CONTENT_DISPOSITION)
            .is_some_and(|value| has_file_name(value.as_bytes()))
}

/// True if a `content-disposition` names a file, by `filename` or, in other alphabets, `filename*`.
fn has_file_name(disposition: &[u8]) -> bool {
    let mut is_quoted = false;
    let mut is_escaped = false;
    let parameters = disposition.split(|byte| {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        match byte {
            b'"' if !was_escaped => is_quoted = !is_quoted,
            b'\\' if is_quoted && !was_escaped => is_escaped = true,
            _ => {}
        }
        *byte == b';' && !is_quoted
    });
    parameters.skip(1).any(|parameter| {
        let Some(end) = parameter.iter().position(|byte| *byte == b'=') else { return false };
        let (name, value) = (parameter[..end].trim_ascii(), parameter[end + 1..].trim_ascii());
        let is_named = name.eq_ignore_ascii_case(b"filename") || name.eq_ignore_ascii_case(b"filename*");
        is_named && !value.is_empty() && value != b"\"\""
    })
}

fn content_type(headers: &HeaderMap) -> String {
    essence(headers.get(header::CONTENT_TYPE).map_or(b"", |value| value.as_bytes()))
}

/// A media type without its parameters, in lower case.
fn essence(kind: &[u8]) -> String {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    String::from_utf8_lossy(kind.trim_ascii()).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn media_type_is_read_without_parameters() {
        let cases = [
            ("image/png", "image/png"),
            ("Image/PNG; q=1", "image/png"),
            (" application/octet-stream ; charset=utf-8", "application/octet-stream"),
            ("application/x-www-form-urlencoded;charset=UTF-8", "application/x-www-form-urlencoded"),
            ("", ""),
            (";", ""),
        ];
        for (kind, expected) in cases {
            assert_eq!(essence(kind.as_bytes()), expected, "{kind}");
        }
    }

    #[test]
    fn file_name_is_found_in_every_spelling() {
        let cases = [
            ("form-data; name=\"a\"", false),
            ("form-data; name=\"a\"; filename=\"a.png\"", true),
            ("form-data; name=a; filename=a.png", true),
            ("Form-Data; Name=\"a\";FileName=\"a.png\"", true),
            ("form-data; name=\"a\"; filename*=UTF-8''%C3%A4.png", true),
            ("form-data; filename = \"a.png\"; name=\"a\"", true),
            ("form-data; name=\"a\"; filename=\"\"", false),
            ("form-data; name=\"a\"; filename=", false),
            ("form-data; name=\"a; filename=b\"", false),
            ("form-data; name=\"a\\\"; filename=b\"", false),
            ("form-data; name=\"a\"; myfilename=\"a.png\"", false),
            ("form-data", false),
        ];
        for (disposition, expected) in cases {
            assert_eq!(has_file_name(disposition.as_bytes()), expected, "{disposition}");
        }
    }

    async fn read(kind: &str, body: &[u8]) -> Result<Bytes, ApiError> {
        let request = Request::builder().header(header::CONTENT_TYPE, kind).body(Body::from(body.to_vec()));
        read_image(request.unwrap()).await
    }

    /// Builds a form of parts, each of headers and data.
    async fn form(parts: &[(&str, &str)]) -> Result<Bytes, ApiError> {
        let mut body = String::new();
        for (head, data) in parts {
            body += &format!("--cut\r\ncontent-disposition: form-data; {head}\r\n\r\n{data}\r\n");
        }
        read("Multipart/Form-Data; Boundary=\"cut\"", format!("{body}--cut--\r\n").as_bytes()).await
    }

    #[tokio::test]
    async fn first_file_of_a_form_is_the_image() {
        let text = ("name=\"note\"", "hello");
        let file = ("name=\"file\"; filename=\"a.png\"", "IMAGE");
        let typed = ("name=\"file\"\r\ncontent-type: Image/PNG; q=1", "IMAGE");
        let bytes = ("name=\"file\"\r\ncontent-type: application/octet-stream", "IMAGE");
        let other = ("name=\"more\"; filename=\"b.png\"", "OTHER");
        let empty_field = ("name=\"more\"; filename=\"\"\r\ncontent-type: application/octet-stream", "");
        let cases: [&[(&str, &str)]; 9] = [
            &[file],
            &[file, text],
            &[text, file],
            &[text, text, file, other],
            &[text, typed],
            &[text, bytes],
            &[empty_field, file],
            &[file, other],
            &[("name=\"file\"", "IMAGE")],
        ];
        for parts in cases {
            assert_eq!(form(parts).await.as_deref(), Ok(&b"IMAGE"[..]), "{parts:?}");
        }
        for parts in [&[text, text][..], &[empty_field], &[text, empty_field], &[]] {
            let error = form(parts).await.unwrap_err();
            assert!(
                error.status() == 400 && error.to_string().contains("no image among"),
                "{parts:?}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn media_types_with_parameters_are_accepted() {
        for kind in [
            "image/png",
            "IMAGE/PNG; charset=binary",
            "application/octet-stream; charset=utf-8",
            "Application/Octet-Stream",
            "application/x-www-form-urlencoded; charset=UTF-8",
            "binary/octet-stream",
            "",
        ] {
            assert_eq!(read(kind, b"IMAGE").await.as_deref(), Ok(&b"IMAGE"[..]), "{kind}");
        }
        for kind in
            ["text/plain", "application/json; charset=utf-8", "multipart/mixed; boundary=cut", "imag/png"]
        {
            assert_eq!(read(kind, b"IMAGE").await.unwrap_err().status(), 415, "{kind}");
        }
    }
}
