//! Unpacks request bodies and packs response bodies: gzip and deflate, as HTTP means them.
//!
//! Reads header values and whole bodies, hands back whole bodies. Knows nothing of sockets or limits other than
//! the one on the unpacked size, which it keeps while unpacking: a bomb never unfolds further than that.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderValue;
use inferd_types::{Error, ErrorKind, Result};

/// Bodies smaller than this are sent as they are, even to who accepts a packed one: packing costs more CPU than
/// the whole request, and the result is hardly smaller than one TCP segment either way.
pub(crate) const PACK_MIN_BYTES: usize = 1024;

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// `gzip`.
    Gzip,
    /// `deflate`: a zlib stream.
    Deflate,
}

impl Packing {
    /// The packing that `Content-Encoding` names; `None` for `identity`.
    ///
    /// # Errors
    /// `UnsupportedMedia` for any other.
    pub(crate) fn of_request(value: &HeaderValue) -> Result<Option<Packing>> {
        let name = value.as_bytes().trim_ascii();
        if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            Ok(Some(Packing::Gzip))
        } else if name.eq_ignore_ascii_case(b"deflate") {
            Ok(Some(Packing::Deflate))
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

    /// What `Accept-Encoding` asks for: the first of gzip and deflate that it names and does not forbid.
    pub(crate) fn for_response(value: &HeaderValue) -> Option<Packing> {
        value.to_str().ok()?.split(',').find_map(|item| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let forbidden = parameters
                .trim()
                .strip_prefix("q=")
                .is_some_and(|q| q.trim().parse::<f32>().is_ok_and(|q| q <= 0.0));
            match name.trim() {
                _ if forbidden => None,
                "gzip" | "x-gzip" => Some(Packing::Gzip),
                "deflate" => Some(Packing::Deflate),
                _ => None,
            }
        })
    }

    /// The value of `Content-Encoding`.
    pub(crate) fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Packing::Gzip => "gzip",
            Packing::Deflate => "deflate",
        })
    }

    /// Unpacks `body` to at most `max` bytes.
    ///
    /// # Errors
    /// `TooLarge` past `max`; `InvalidInput` where `body` is not what its header says.
    pub(crate) fn unpack(self, body: &Bytes, max: usize) -> Result<Bytes> {
        match self {
            Packing::Gzip => read_limited(MultiGzDecoder::new(&body[..]), max),
            // Some clients send a bare deflate stream under this name; a zlib header tells the two apart.
            Packing::Deflate if is_zlib(body) => read_limited(ZlibDecoder::new(&body[..]), max),
            Packing::Deflate => read_limited(DeflateDecoder::new(&body[..]), max),
        }
    }

    /// Packs `body`. The fast level: on tensors the slower ones gain a few per cent for several times the CPU.
    pub(crate) fn pack(self, body: &[u8]) -> Bytes {
        const FITS: &str = "a Vec takes every write";
        let out = Vec::with_capacity(body.len() / 2 + 64);
        let packed = match self {
            Packing::Gzip => {
                let mut encoder = GzEncoder::new(out, Compression::fast());
                encoder.write_all(body).expect(FITS);
                encoder.finish()
            }
            Packing::Deflate => {
                let mut encoder = ZlibEncoder::new(out, Compression::fast());
                encoder.write_all(body).expect(FITS);
                encoder.finish()
            }
        };
        packed.expect(FITS).into()
    }
}

fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)).is_multiple_of(31))
}

fn read_limited(reader: impl Read, max: usize) -> Result<Bytes> {
    let mut unpacked = Vec::new();
    reader.take(max as u64 + 1).read_to_end(&mut unpacked).map_err(|error| {
        Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the body is not what its Content-Encoding says ({error}); send it whole, or without one"
            ),
        )
    })?;
    if unpacked.len() > max {
        return Err(too_large(max));
    }
    Ok(unpacked.into())
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
        for packing in [Packing::Gzip, Packing::Deflate] {
            let packed = packing.pack(&body);
            assert!(packed.len() < 200);
            assert_eq!(packing.unpack(&packed, 10_000).unwrap(), body);
            assert_eq!(packing.unpack(&packed, 9_999).unwrap_err().kind(), ErrorKind::TooLarge);
        }
    }

    #[test]
    fn a_bare_deflate_stream_is_taken_too() {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(b"hello hello hello").unwrap();
        let packed = Bytes::from(encoder.finish().unwrap());
        assert_eq!(&Packing::Deflate.unpack(&packed, 100).unwrap()[..], b"hello hello hello");
    }

    #[test]
    fn garbage_and_cut_streams_are_the_clients_fault() {
        let whole = Packing::Gzip.pack(&[1; 5000]);
        for body in [Bytes::from_static(b"not packed"), whole.slice(..whole.len() - 9)] {
            for packing in [Packing::Gzip, Packing::Deflate] {
                assert_eq!(packing.unpack(&body, 1 << 20).unwrap_err().kind(), ErrorKind::InvalidInput);
            }
        }
    }

    #[test]
    fn a_response_is_packed_only_as_it_is_asked_for() {
        let asked = |value| Packing::for_response(&HeaderValue::from_static(value));
        assert_eq!(asked("gzip"), Some(Packing::Gzip));
        assert_eq!(asked("br, deflate;q=0.5, gzip"), Some(Packing::Deflate));
        assert_eq!(asked("gzip;q=0, deflate;q=0.0"), None);
        assert_eq!(asked("identity"), None);
        assert_eq!(asked(""), None);
    }
}
