//! On whose behalf a request comes: the value of one header, as a number with a weight.
//!
//! Reads headers, hands out a [`Tenant`] for the scheduler. Knows nothing of what sharing means.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, HeaderName};
use inferd_types::settings::GatewaySettings;
use inferd_types::{Error, ErrorKind, Result, Tenant};

/// Names that are in no settings and share nothing with each other; who comes after them share one place. Callers
/// choose the names: without a bound they could fill memory with them.
const STRANGERS_MAX: u32 = 1024;

/// Who is known.
#[derive(Debug)]
pub(crate) struct Tenants {
    header: HeaderName,
    named: HashMap<Box<str>, Tenant>,
    /// Numbers of the others, given as they come.
    strangers: Mutex<HashMap<Box<str>, u32>>,
}

impl Tenants {
    /// `None` where no header tells tenants apart.
    ///
    /// # Errors
    /// `InvalidInput` where the setting is no header's name.
    pub(crate) fn new(settings: &GatewaySettings) -> Result<Option<Tenants>> {
        let Some(name) = &settings.tenant_header else { return Ok(None) };
        let header = HeaderName::try_from(name.as_str()).map_err(|_| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("tenant_header '{name}' is no name of a header; write for instance X-Tenant"),
            )
        })?;
        let named = settings
            .tenants
            .iter()
            .zip(1u32..)
            .map(|((name, weight), id)| (name.as_str().into(), Tenant { id, weight: (*weight).max(1) }));
        Ok(Some(Tenants { header, named: named.collect(), strangers: Mutex::default() }))
    }

    /// Whose request has these headers.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Tenant {
        let name = headers.get(&self.header).and_then(|value| value.to_str().ok());
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Tenant::default() };
        self.named.get(name).copied().unwrap_or_else(|| self.stranger(name))
    }

    fn stranger(&self, name: &str) -> Tenant {
        let first = self.named.len() as u32 + 1;
        // A map is valid after every single insertion.
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match strangers.get(name) {
            Some(id) => *id,
            None if strangers.len() as u32 >= STRANGERS_MAX => first + STRANGERS_MAX,
            None => {
                let id = first + strangers.len() as u32;
                strangers.insert(name.into(), id);
                id
            }
        };
        Tenant { id, weight: 1 }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tenants() -> Tenants {
        let mut settings: GatewaySettings = serde_json::from_value(json!({
            "host": "127.0.0.1", "port": 0, "metrics_port": null, "gateway_threads": 1, "body_max_bytes": 1,
            "inflight_max_bytes": 1, "header_max_bytes": 1, "json_depth_max": 8, "connections_max": 1,
            "streams_max": 1, "header_timeout_s": 1.0, "body_timeout_s": 1.0, "drain_timeout_s": 1.0,
            "otlp_endpoint": null, "tenant_header": "X-Tenant", "tenants": {"gold": 4, "iron": 1}
        }))
        .expect("every field");
        settings.tenants.insert("nobody".to_owned(), 0);
        Tenants::new(&settings).expect("a header's name").expect("one is set")
    }

    fn of(tenants: &Tenants, name: &str) -> Tenant {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", name.parse().expect("a value"));
        tenants.of(&headers)
    }

    #[test]
    fn who_is_named_has_a_weight_and_who_says_nothing_is_nobody() {
        let tenants = tenants();
        assert_eq!(of(&tenants, "gold").weight, 4);
        assert_eq!(of(&tenants, "nobody").weight, 1);
        assert_ne!(of(&tenants, "gold").id, of(&tenants, "iron").id);
        assert_eq!(tenants.of(&HeaderMap::new()), Tenant::default());
        assert_eq!(of(&tenants, ""), Tenant::default());
    }

    #[test]
    fn strangers_are_told_apart_until_there_are_too_many() {
        let tenants = tenants();
        let known = of(&tenants, "stranger 0");
        assert_eq!(of(&tenants, "stranger 0"), known);
        let last = (0..STRANGERS_MAX).map(|number| of(&tenants, &format!("stranger {number}"))).last();
        let (late, later) = (of(&tenants, "late"), of(&tenants, "later"));
        assert!(late == later && Some(late) != last);
        assert_eq!(of(&tenants, "stranger 0"), known);
    }
}
