//! Request ids and W3C trace context.
//!
//! Reads the headers `x-request-id` and `traceparent`, hands out the ids that answers and spans carry.
//! Does not know whether spans are collected.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries the trace context, in and out.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// The header that carries the request id, in and out.
pub(crate) const REQUEST_ID: &str = "x-request-id";

/// Longest request id that is kept; a longer one is replaced, so that logs stay readable.
const REQUEST_ID_MAX: usize = 128;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The ids of one request, which its answer carries too.
#[derive(Clone, Debug)]
pub(crate) struct RequestIds {
    pub(crate) request_id: HeaderValue,
    /// The place in a trace; `None` where the client sent none and no spans are collected.
    pub(crate) trace: Option<TraceContext>,
}

impl RequestIds {
    pub(crate) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// Sets the headers of an answer.
    pub(crate) fn write(self, headers: &mut HeaderMap) {
        if let Some(trace) = self.trace {
            headers.insert(HeaderName::from_static(TRACEPARENT), trace.header());
        }
        headers.insert(HeaderName::from_static(REQUEST_ID), self.request_id);
    }
}

/// Makes ids that are unique in practice. They are not secrets.
#[derive(Debug)]
pub(crate) struct Ids {
    seed: u64,
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Ids {
        // The one source of randomness in the standard library: keys of hash maps, drawn from the system.
        Ids { seed: RandomState::new().hash_one(0), next: AtomicU64::new(1) }
    }

    /// A number that is not 0 and unique in this process.
    pub(crate) fn number(&self) -> u64 {
        // The output function of SplitMix64 (Steele et al., 2014) over a counter: a bijection, so never the same twice.
        let mut z =
            self.seed.wrapping_add(self.next.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).max(1)
    }

    /// The client's own id where it sent a usable one, else a new one.
    pub(crate) fn request_id(&self, sent: Option<&HeaderValue>) -> HeaderValue {
        if let Some(sent) = sent
            && (1..=REQUEST_ID_MAX).contains(&sent.len())
            && sent.as_bytes().iter().all(u8::is_ascii_graphic)
        {
            return sent.clone();
        }
        let mut text = [0; 16];
        write_hex(self.number(), &mut text);
        HeaderValue::from_bytes(&text).expect("hexadecimal digits make a header")
    }

    /// The context of a further span of this server under the same parent.
    pub(crate) fn sibling(&self, of: TraceContext) -> TraceContext {
        TraceContext { span: self.number(), ..of }
    }

    /// The context of this server's own span: a child of `sent`, or the root of a new trace.
    pub(crate) fn context(&self, sent: Option<TraceParent>) -> TraceContext {
        let span = self.number();
        match sent {
            Some(parent) => {
                TraceContext { trace: parent.trace, span, parent: Some(parent.span), sampled: parent.sampled }
            }
            None => {
                let trace = u128::from(self.number()) << 64 | u128::from(self.number());
                TraceContext { trace, span, parent: None, sampled: true }
            }
        }
    }
}

/// The content of a `traceparent` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    trace: u128,
    span: u64,
    sampled: bool,
}

impl TraceParent {
    /// Reads the header; `None` where it is not what the recommendation (W3C Trace Context, section 3.2) allows.
    pub(crate) fn parse(header: &HeaderValue) -> Option<TraceParent> {
        let text = header.to_str().ok()?;
        let mut fields = text.split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let hex = |field: &str, digits: usize| {
            let valid =
                field.len() == digits && field.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            valid.then(|| u128::from_str_radix(field, 16).ok()).flatten()
        };
        let version = hex(version, 2)?;
        // Later versions may append fields; version 0 has exactly four; ff is forbidden.
        if version == 0xff || (version == 0 && fields.next().is_some()) {
            return None;
        }
        let (trace, span) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?);
        let sampled = hex(flags, 2)? & 1 == 1;
        (trace != 0 && span != 0).then_some(TraceParent { trace, span, sampled })
    }
}

/// The place of this server's span in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) sampled: bool,
}

impl TraceContext {
    /// The header that passes this span on.
    pub(crate) fn header(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex((self.trace >> 64) as u64, &mut text[3..19]);
        write_hex(self.trace as u64, &mut text[19..35]);
        write_hex(self.span, &mut text[36..52]);
        text[54] = HEX[usize::from(self.sampled)];
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes make a header")
    }
}

fn write_hex(number: u64, into: &mut [u8]) {
    for (place, digit) in into.iter_mut().rev().enumerate() {
        *digit = HEX[(number >> (4 * place)) as usize & 0xf];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_trace_is_kept_and_the_span_is_new() {
        let parent = TraceParent::parse(&HeaderValue::from_static(SENT)).unwrap();
        let ids = Ids::new();
        let context = ids.context(Some(parent));
        let header = context.header();
        let header = header.to_str().unwrap();
        assert_eq!(header.len(), SENT.len());
        assert_eq!(header[..36], SENT[..36]);
        assert_ne!(header[36..52], SENT[36..52]);
        assert_eq!(header[52..], SENT[52..]);
        assert_eq!(context.parent, Some(0x00f0_67aa_0ba9_02b7));
        assert_eq!(TraceParent::parse(&context.header()).unwrap().span, context.span);
    }

    #[test]
    fn what_is_not_a_traceparent_is_passed_over() {
        for sent in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(&HeaderValue::from_static(sent)), None, "{sent}");
        }
        assert!(
            TraceParent::parse(&HeaderValue::from_static(
                "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more"
            ))
            .is_some_and(|parent| !parent.sampled)
        );
    }

    #[test]
    fn a_usable_request_id_is_kept_and_any_other_is_replaced() {
        let ids = Ids::new();
        let sent = HeaderValue::from_static("abc-1");
        assert_eq!(ids.request_id(Some(&sent)), sent);
        let long = HeaderValue::from_str(&"x".repeat(129)).unwrap();
        for sent in [None, Some(&HeaderValue::from_static("two words")), Some(&long)] {
            assert_eq!(ids.request_id(sent).len(), 16);
        }
        assert_ne!(ids.request_id(None), ids.request_id(None));
    }
}
