//! Tenants: the number and the weight by which the scheduler shares.
//!
//! Reads one header of each request, hands on a [`Tenant`]. Knows nothing of how the scheduler shares.

use std::collections::{BTreeMap, HashMap};
use std::sync::{PoisonError, RwLock};

use http::{HeaderMap, HeaderName};
use inferd_types::{Error, ErrorKind, Result, Tenant};

/// Names outside the settings that get a queue of their own; the rest share one. Bounded, since any caller can invent
/// names, and each costs the scheduler memory for ever.
const UNKNOWN_MAX: usize = 1024;

/// Longest unknown name that is remembered.
const NAME_MAX_BYTES: usize = 128;

/// The tenants. Numbers: 0 for requests without the header, then those of the settings, then one for all names beyond
/// [`UNKNOWN_MAX`], then unknown names in the order of their first request.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    /// The header that names the tenant; `None`: tenancy is disabled.
    header: Option<HeaderName>,
    named: HashMap<Box<[u8]>, Tenant>,
    /// By number less one, for labels.
    names: Vec<String>,
    unknown: RwLock<HashMap<Box<[u8]>, u32>>,
}

impl Tenants {
    /// # Errors
    /// `InvalidInput` where `header` can't be a header's name.
    pub(crate) fn new(header: Option<&str>, weights: &BTreeMap<String, u32>) -> Result<Tenants> {
        let parse = |header: &str| {
            HeaderName::from_bytes(header.as_bytes()).map_err(|_| {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!("tenant_header '{header}' can't be a header's name; write for instance x-tenant"),
                )
            })
        };
        let mut tenants = Tenants { header: header.map(parse).transpose()?, ..Tenants::default() };
        for (id, (name, weight)) in (1..).zip(weights) {
            let tenant = Tenant { id, weight: (*weight).max(1) };
            tenants.named.insert(name.as_bytes().into(), tenant);
            tenants.names.push(name.clone());
        }
        Ok(tenants)
    }

    /// The tenant of a request with these headers.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Tenant {
        let Some(name) = self.header.as_ref().and_then(|header| headers.get(header)) else {
            return Tenant::default();
        };
        let name = name.as_bytes();
        self.named.get(name).copied().unwrap_or_else(|| Tenant { id: self.unknown(name), weight: 1 })
    }

    /// The tenant in metrics; `None` outside the settings: any caller could create labels.
    pub(crate) fn label(&self, tenant: Tenant) -> Option<&str> {
        self.names.get((tenant.id as usize).checked_sub(1)?).map(String::as_str)
    }

    /// Numbers that there may be; 0 where tenancy is disabled.
    pub(crate) fn count_max(&self) -> usize {
        self.header.as_ref().map_or(0, |_| self.names.len() + 2 + UNKNOWN_MAX)
    }

    fn unknown(&self, name: &[u8]) -> u32 {
        let others = self.names.len() as u32 + 1;
        if name.len() > NAME_MAX_BYTES {
            return others;
        }
        // A map of numbers is valid after every insertion.
        if let Some(id) = self.unknown.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return *id;
        }
        let mut unknown = self.unknown.write().unwrap_or_else(PoisonError::into_inner);
        let next = others + 1 + unknown.len() as u32;
        if unknown.len() >= UNKNOWN_MAX {
            return unknown.get(name).copied().unwrap_or(others);
        }
        *unknown.entry(name.into()).or_insert(next)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn tenants() -> Tenants {
        let weights = [("gold".to_owned(), 4), ("silver".to_owned(), 2)];
        Tenants::new(Some("X-Tenant"), &weights.into_iter().collect()).unwrap()
    }

    fn of(tenants: &Tenants, name: &str) -> Tenant {
        tenants.of(&HeaderMap::from_iter([(
            HeaderName::from_static("x-tenant"),
            HeaderValue::from_str(name).unwrap(),
        )]))
    }

    #[test]
    fn named_tenants_have_their_weight_and_a_label_and_unknown_ones_a_queue_only() {
        let tenants = tenants();
        assert_eq!(of(&tenants, "gold"), Tenant { id: 1, weight: 4 });
        assert_eq!(of(&tenants, "silver").weight, 2);
        assert_eq!(tenants.label(of(&tenants, "silver")), Some("silver"));
        let unknown = of(&tenants, "bronze");
        assert_eq!((unknown.weight, tenants.label(unknown)), (1, None));
        assert_eq!(of(&tenants, "bronze"), unknown);
        assert_ne!(of(&tenants, "tin"), unknown);
    }

    #[test]
    fn a_request_without_the_header_has_the_default_tenant() {
        assert_eq!(tenants().of(&HeaderMap::new()), Tenant::default());
        assert_eq!(tenants().label(Tenant::default()), None);
        let off = Tenants::new(None, &BTreeMap::new()).unwrap();
        assert_eq!(of(&off, "gold"), Tenant::default());
    }

    #[test]
    fn made_up_names_share_one_queue_when_there_are_too_many() {
        let tenants = tenants();
        let first = of(&tenants, "name-0");
        let ids: std::collections::HashSet<u32> =
            (0..2 * UNKNOWN_MAX).map(|number| of(&tenants, &format!("name-{number}")).id).collect();
        assert_eq!(ids.len(), UNKNOWN_MAX + 1);
        assert_eq!(of(&tenants, &"long".repeat(100)).id, of(&tenants, "one more").id);
        assert_eq!(of(&tenants, "name-0"), first);
        assert_eq!(of(&tenants, "gold").id, 1);
        assert!(ids.iter().all(|id| (*id as usize) < tenants.count_max()));
    }

    #[test]
    fn a_header_that_cannot_be_one_is_an_error_that_names_the_setting() {
        let error = Tenants::new(Some("no header"), &BTreeMap::new()).unwrap_err();
        assert!(error.message().contains("tenant_header"));
    }
}
