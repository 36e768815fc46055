//! `GET /docs`: a page to read and to try what `/openapi.json` says.
//!
//! Reads the folder of a Swagger UI distribution, hands back its files and one page around them. Only the names in
//! [`asset`] are served, so no path leads out of the folder; nothing is kept in memory between requests.
//! Knows nothing of models: the page asks for `/openapi.json` itself.

use std::path::Path;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use inferd_types::{Error, ErrorKind, Result};

use crate::answer::compression::{COMPRESS_MIN_BYTES, ContentCoding};
use crate::answer::response::{self, HttpResponse, ResponseBody};
use crate::offload::off_reactor;
use crate::route::endpoint::DocsPath;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");

/// The browser connects to no other server, whatever a file of the folder says. Styles inside elements and images
/// inside style sheets are Swagger UI's own.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// Revalidated each time, which costs a 304: the addresses stay when the package is upgraded.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// A file as it is now; its content unless the client has it.
struct File {
    tag: String,
    content: Option<(Bytes, Option<ContentCoding>)>,
}

/// Answers one request. `folder` is where the distribution is; `None` where there is none.
///
/// # Errors
/// `NotFound` without a distribution, with the way to one, and for every name that is not one of its files.
pub(super) async fn answer(
    folder: Option<&Path>,
    path: DocsPath<'_>,
    headers: &HeaderMap,
    coding: Option<ContentCoding>,
) -> Result<HttpResponse> {
    let folder = folder.ok_or_else(missing)?;
    match path {
        DocsPath::Page => Ok(own("text/html; charset=utf-8", PAGE)),
        // Relative addresses on the page would lead one level too deep.
        DocsPath::Folder => {
            let mut response = response::empty(StatusCode::PERMANENT_REDIRECT);
            response.headers_mut().insert(LOCATION, HeaderValue::from_static("../docs"));
            Ok(response)
        }
        DocsPath::File("page.js") => Ok(own("text/javascript; charset=utf-8", SCRIPT)),
        DocsPath::File(name) => {
            let (name, kind) = asset(name).ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    "the page at /docs has no such file; open /docs, or read /openapi.json",
                )
            })?;
            let known = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).map(str::to_owned);
            let file = folder.join(name);
            let file = off_reactor(move || read(&file, known.as_deref(), coding)).await??;
            whole(kind, file)
        }
    }
}

/// The files that the page needs, with their types.
fn asset(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "swagger-ui.css" => ("swagger-ui.css", "text/css; charset=utf-8"),
        "swagger-ui-bundle.js" => ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
        "favicon-32x32.png" => ("favicon-32x32.png", "image/png"),
        _ => return None,
    })
}

fn missing() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "there is no page here: pip install 'inferd[docs]', leave the setting docs at true and start again; \
         /openapi.json says the same for programs",
    )
}

fn read(path: &Path, known: Option<&str>, coding: Option<ContentCoding>) -> Result<File> {
    let unreadable = |error: std::io::Error| {
        Error::new(
            ErrorKind::Internal,
            "a file of the page can't be read; reinstall what 'inferd[docs]' brings and start again",
        )
        .with_detail(format!("{}: {error}", path.display()))
    };
    let about = path.metadata().map_err(unreadable)?;
    let changed = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    // Weak: what is packed and what is not are the same file.
    let tag = format!("W/\"{:x}-{:x}\"", about.len(), changed.map_or(0, |since| since.as_nanos()));
    if known.is_some_and(|known| known.split(',').any(|one| one.trim() == tag || one.trim() == "*")) {
        return Ok(File { tag, content: None });
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let coding = coding.filter(|_| bytes.len() >= COMPRESS_MIN_BYTES);
    let bytes = match coding {
        Some(coding) => coding.compress(&bytes),
        None => bytes.into(),
    };
    Ok(File { tag, content: Some((bytes, coding)) })
}

fn whole(kind: &'static str, file: File) -> Result<HttpResponse> {
    let mut response = match file.content {
        None => response::empty(StatusCode::NOT_MODIFIED),
        Some((bytes, coding)) => {
            let mut response = Response::new(ResponseBody::Whole(Some(bytes)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Some(coding) = coding {
                response.headers_mut().insert(CONTENT_ENCODING, coding.header());
            }
            response
        }
    };
    let tag = HeaderValue::from_str(&file.tag)
        .map_err(|_| Error::new(ErrorKind::Internal, "the tag of a file is no header"))?;
    let headers = response.headers_mut();
    headers.insert(ETAG, tag);
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    protect(headers);
    Ok(response)
}

/// A file that is part of inferd.
fn own(kind: &'static str, text: &'static str) -> HttpResponse {
    let mut response = Response::new(ResponseBody::Whole(Some(Bytes::from_static(text.as_bytes()))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    protect(headers);
    response
}

fn protect(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, REVALIDATE);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
