//! Decompresses request bodies and compresses response bodies: gzip and deflate, as HTTP defines them.
//!
//! Reads header values and whole bodies, hands back whole bodies. Knows nothing of sockets or limits other than
//! the one on the decompressed size, which it keeps while it decompresses: a bomb never grows beyond that.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderValue;
use inferd_types::{Error, ErrorKind, Result};

/// Bodies smaller than this are never compressed: that would cost more CPU than the whole request, and the result is
/// hardly smaller than one TCP segment either way.
pub(crate) const COMPRESS_MIN_BYTES: usize = 1024;

/// How a body is compressed (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentCoding {
    /// `gzip`.
    Gzip,
    /// `deflate`: a zlib stream.
    Deflate,
}

impl ContentCoding {
    /// The coding that `Content-Encoding` names; `None` for `identity`.
    ///
    /// # Errors
    /// `UnsupportedMedia` for any other.
    pub(crate) fn of_request(value: &HeaderValue) -> Result<Option<ContentCoding>> {
        let name = value.as_bytes().trim_ascii();
        if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            Ok(Some(ContentCoding::Gzip))
        } else if name.eq_ignore_ascii_case(b"deflate") {
            Ok(Some(ContentCoding::Deflate))
        } else if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
            Ok(None)
        } else {
            Err(Error::new(
                ErrorKind::UnsupportedMedia,
                format!(
                    "Content-Encoding '{}' is not understood; send gzip, deflate or none",
                    String::from_utf8_lossy(name)
                ),
            ))
        }
    }

    /// The coding that `Accept-Encoding` asks for: the first of gzip and deflate that it names and does not forbid.
    pub(crate) fn for_response(value: &HeaderValue) -> Option<ContentCoding> {
        value.to_str().ok()?.split(',').find_map(|item| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let forbidden = parameters
                .trim()
                .strip_prefix("q=")
                .is_some_and(|q| q.trim().parse::<f32>().is_ok_and(|q| q <= 0.0));
            match name.trim() {
                _ if forbidden => None,
                "gzip" | "x-gzip" => Some(ContentCoding::Gzip),
                "deflate" => Some(ContentCoding::Deflate),
                _ => None,
            }
        })
    }

    /// The value of `Content-Encoding`.
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            ContentCoding::Gzip => "gzip",
            ContentCoding::Deflate => "deflate",
        })
    }

    /// Decompresses `body` to at most `max` bytes.
    ///
    /// # Errors
    /// `TooLarge` past `max`; `InvalidInput` where `body` is not what its header says.
    pub(crate) fn decompress(self, body: &Bytes, max: usize) -> Result<Bytes> {
        match self {
            ContentCoding::Gzip => read_limited(MultiGzDecoder::new(&body[..]), max),
            // Some clients send a bare deflate stream under this name; a zlib header tells the two apart.
            ContentCoding::Deflate if is_zlib(body) => read_limited(ZlibDecoder::new(&body[..]), max),
            ContentCoding::Deflate => read_limited(DeflateDecoder::new(&body[..]), max),
        }
    }

    /// Compresses `body`. The fast level: on tensors the slower ones gain a few per cent for several times the CPU.
    pub(crate) fn compress(self, body: &[u8]) -> Bytes {
        const FITS: &str = "a Vec takes every write";
        let out = Vec::with_capacity(body.len() / 2 + 64);
        let compressed = match self {
            ContentCoding::Gzip => {
                let mut encoder = GzEncoder::new(out, Compression::fast());
                encoder.write_all(body).expect(FITS);
                encoder.finish()
            }
            ContentCoding::Deflate => {
                let mut encoder = ZlibEncoder::new(out, Compression::fast());
                encoder.write_all(body).expect(FITS);
                encoder.finish()
            }
        };
        compressed.expect(FITS).into()
    }
}

fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)).is_multiple_of(31))
}

fn read_limited(reader: impl Read, max: usize) -> Result<Bytes> {
    let mut decompressed = Vec::new();
    reader.take(max as u64 + 1).read_to_end(&mut decompressed).map_err(|error| {
        Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the body is not what its Content-Encoding says ({error}); send it whole, or without one"
            ),
        )
    })?;
    if decompressed.len() > max {
        return Err(too_large(max));
    }
    Ok(decompressed.into())
}

fn too_large(max: usize) -> Error {
    Error::new(
        ErrorKind::TooLarge,
        format!(
            "the body unpacks to more than body_max_bytes = {max}; send less at once, or raise body_max_bytes"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        let body = Bytes::from(vec![7u8; 10_000]);
        for coding in [ContentCoding::Gzip, ContentCoding::Deflate] {
            let packed = coding.compress(&body);
            assert!(packed.len() < 200);
            assert_eq!(coding.decompress(&packed, 10_000).unwrap(), body);
            assert_eq!(coding.decompress(&packed, 9_999).unwrap_err().kind(), ErrorKind::TooLarge);
        }
    }

    #[test]
    fn a_bare_deflate_stream_is_taken_too() {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"hello hello hello").unwrap();
        let packed = Bytes::from(encoder.finish().unwrap());
        assert_eq!(&ContentCoding::Deflate.decompress(&packed, 100).unwrap()[..], b"hello hello hello");
    }

    #[test]
    fn garbage_and_cut_streams_are_the_clients_fault() {
        let whole = ContentCoding::Gzip.compress(&[1; 5000]);
        for body in [Bytes::from_static(b"not packed"), whole.slice(..whole.len() - 9)] {
            for coding in [ContentCoding::Gzip, ContentCoding::Deflate] {
                assert_eq!(coding.decompress(&body, 1 << 20).unwrap_err().kind(), ErrorKind::InvalidInput);
            }
        }
    }

    #[test]
    fn a_response_is_packed_only_as_it_is_asked_for() {
        let asked = |value| ContentCoding::for_response(&HeaderValue::from_static(value));
        assert_eq!(asked("gzip"), Some(ContentCoding::Gzip));
        assert_eq!(asked("br, deflate;q=0.5, gzip"), Some(ContentCoding::Deflate));
        assert_eq!(asked("gzip;q=0, deflate;q=0.0"), None);
        assert_eq!(asked("identity"), None);
        assert_eq!(asked(""), None);
    }
}
