//! How a route picks among its versions: aliases, and the shares of a split.
//!
//! Reads versions, weights and a key, hands back a version. Knows no model and no request.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use inferd_types::{Error, ErrorKind, Result};

/// How the requests for one name are shared among its versions. The default: all of those that name no version go to the
/// greatest version that serves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Names of versions, valid wherever a version is written.
    pub aliases: BTreeMap<String, u64>,
    /// Version and weight. A version that does not serve yields its share to the others.
    pub split: Vec<(u64, u32)>,
    /// Version and share (0 to 1) of requests that run there too; their answers are compared and never returned.
    pub shadow: Vec<(u64, f64)>,
}

impl Rules {
    /// # Errors
    /// `InvalidInput` for an alias that is a number or empty, weights whose sum is zero, a share outside 0 to 1, and
    /// a version that is named twice.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let invalid = |what: String| {
            Err(Error::new(ErrorKind::InvalidInput, format!("route of model '{name}': {what}")))
        };
        if let Some(alias) = self.aliases.keys().find(|alias| alias.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return invalid(format!("alias '{alias}' would be read as a version; begin it with a letter"));
        }
        if !self.split.is_empty() && self.split.iter().all(|(_, weight)| *weight == 0) {
            return invalid("every weight of the split is 0; give one version a weight".to_owned());
        }
        if let Some((version, share)) = self.shadow.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            return invalid(format!("the shadow share {share} of version {version} is not within 0 and 1"));
        }
        for versions in [self.split.iter().map(|(version, _)| *version).collect::<Vec<_>>(), self.shadowed()]
        {
            let mut seen = std::collections::BTreeSet::new();
            if let Some(twice) = versions.into_iter().find(|version| !seen.insert(*version)) {
                return invalid(format!("version {twice} is named twice; name it once"));
            }
        }
        Ok(())
    }

    fn shadowed(&self) -> Vec<u64> {
        self.shadow.iter().map(|(version, _)| *version).collect()
    }

    /// The version of the split that a draw from 0 to 2⁶⁴ - 1 falls on, among those that `serves` allows. `None`: none
    /// of them has a weight.
    pub(super) fn draw(&self, draw: u64, serves: impl Fn(u64) -> bool) -> Option<u64> {
        let open = || self.split.iter().filter(|(version, weight)| *weight > 0 && serves(*version));
        let total: u64 = open().map(|(_, weight)| u64::from(*weight)).sum();
        let mut at = ((u128::from(draw) * u128::from(total)) >> 64) as u64;
        for (version, weight) in open() {
            match at.checked_sub(u64::from(*weight)) {
                Some(rest) => at = rest,
                None => return Some(*version),
            }
        }
        None
    }
}

/// Draws that decide a split. Clients send constant ids, and counters alias with periodic traffic: a draw without a key
/// is pseudo-random (SplitMix64, Steele et al. 2014), one with a key is a hash of it.
#[derive(Debug)]
pub(super) struct Draws {
    /// Begins the sequence, and salts the hashes: else the same callers would be the first of every rollout.
    salt: u64,
    count: AtomicU64,
}

impl Draws {
    pub(super) fn new(salt: &str) -> Draws {
        Draws { salt: hash(salt.as_bytes()), count: AtomicU64::new(0) }
    }

    /// The next draw; with a key, the same for the same key.
    pub(super) fn next(&self, key: Option<&str>) -> u64 {
        let value = match key {
            Some(key) => hash(key.as_bytes()),
            None => self.count.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        };
        mix(self.salt ^ value)
    }
}

/// The same on every machine and in every release, so that a caller meets the same version behind each of several
/// gateways.
fn hash(bytes: &[u8]) -> u64 {
    let digest = blake3::hash(bytes);
    digest.as_bytes().iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The finaliser of SplitMix64.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(weights: &[(u64, u32)]) -> Rules {
        Rules { split: weights.to_vec(), ..Rules::default() }
    }

    fn shares(rules: &Rules, draws: &Draws, serves: fn(u64) -> bool) -> BTreeMap<u64, u32> {
        let mut shares = BTreeMap::new();
        for _ in 0..10_000 {
            *shares.entry(rules.draw(draws.next(None), serves).unwrap()).or_default() += 1;
        }
        shares
    }

    #[test]
    fn a_split_is_kept_and_who_does_not_serve_yields_its_share() {
        let (rules, draws) = (split(&[(1, 90), (2, 10), (3, 0)]), Draws::new("model"));
        let all = shares(&rules, &draws, |_| true);
        assert_eq!(all.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert!((850..1150).contains(&all[&2]), "{all:?}");
        assert_eq!(shares(&rules, &draws, |version| version == 2), [(2, 10_000)].into());
        assert_eq!(rules.draw(0, |_| false), None);
        assert_eq!(rules.draw(u64::MAX, |_| true), Some(2));
    }

    #[test]
    fn a_key_meets_the_same_version_and_other_callers_in_each_rollout() {
        let rules = split(&[(1, 50), (2, 50)]);
        let (first, second) = (Draws::new("model one"), Draws::new("model two"));
        let of = |draws: &Draws, key: &str| rules.draw(draws.next(Some(key)), |_| true).unwrap();
        let keys: Vec<String> = (0..400).map(|number| format!("caller-{number}")).collect();
        assert!(keys.iter().all(|key| of(&first, key) == of(&first, key)));
        let moved = keys.iter().filter(|key| of(&first, key) != of(&second, key)).count();
        assert!((150..250).contains(&moved), "{moved}");
    }

    #[test]
    fn what_no_route_can_have_is_refused() {
        let refused = |rules: Rules| rules.check("m").unwrap_err().to_string();
        assert!(Rules::default().check("m").is_ok());
        let alias = |name: &str| Rules { aliases: [(name.to_owned(), 1)].into(), ..Rules::default() };
        assert!(alias("stable").check("m").is_ok());
        assert!(refused(alias("12")).contains("alias '12'"));
        assert!(refused(alias("")).contains("alias ''"));
        assert!(refused(split(&[(1, 0), (2, 0)])).contains("every weight"));
        assert!(refused(split(&[(1, 5), (1, 5)])).contains("version 1 is named twice"));
        assert!(refused(Rules { shadow: vec![(2, 1.5)], ..Rules::default() }).contains("1.5"));
    }
}
