//! The regions that clients registered, by tenant and name.
//!
//! Reads names and slices, hands on bytes. What a region is in the system is in `registered`.
//! Knows nothing of models.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use inferd_protocol::{Decoded, OutsideInput, Region, RegionSlice};
use inferd_types::{Error, ErrorKind, InferResponse, Result, Signature, Tenant};

use super::registered::{Registered, invalid};
use crate::admit::inflight::HeldBytes;
use crate::offload::{LARGE_BYTES, off_reactor};

/// Most regions of all tenants: each holds a descriptor, of which a process has 1,024 by default.
const REGIONS_MAX: usize = 256;
/// Longest name of a region.
const NAME_MAX_BYTES: usize = 255;

/// By the tenant's number, then by name: a tenant sees its own regions only. Tenants beyond the number that have a queue of
/// their own share their regions too.
type ByTenant = BTreeMap<u32, BTreeMap<String, Arc<Registered>>>;

/// The registered regions; refuses everything where the setting is off.
#[derive(Debug)]
pub(crate) struct Regions {
    on: bool,
    regions: Mutex<ByTenant>,
}

impl Regions {
    pub(crate) fn new(on: bool) -> Regions {
        Regions { on, regions: Mutex::default() }
    }

    /// Whether clients may use it.
    pub(crate) fn on(&self) -> bool {
        self.on
    }

    /// Opens a region.
    ///
    /// # Errors
    /// `Unimplemented` where it is off, `InvalidInput` where the name is taken, this user has no such memory, or
    /// it is shorter than stated.
    pub(crate) fn register(&self, tenant: Tenant, region: Region) -> Result<()> {
        self.check_on()?;
        if region.name.is_empty() || region.name.len() > NAME_MAX_BYTES {
            return Err(invalid(format!("a region's name has 1 to {NAME_MAX_BYTES} bytes")));
        }
        drop(self.check_room(tenant, &region.name)?);
        let registered = Registered::open(region)?;
        // Again: another may have been registered in between.
        let mut regions = self.check_room(tenant, &registered.region.name)?;
        let name = registered.region.name.clone();
        regions.entry(tenant.id).or_default().insert(name, Arc::new(registered));
        Ok(())
    }

    /// Forgets a region of `tenant`, or all of them. Requests that use one finish; an unknown name is no error.
    ///
    /// # Errors
    /// `Unimplemented` where it is off.
    pub(crate) fn unregister(&self, tenant: Tenant, name: Option<&str>) -> Result<()> {
        self.check_on()?;
        let mut regions = self.lock();
        match (name, regions.get_mut(&tenant.id)) {
            (Some(name), Some(own)) => drop(own.remove(name)),
            (None, Some(own)) => own.clear(),
            (_, None) => {}
        }
        Ok(())
    }

    /// One region of `tenant`, or all by name.
    ///
    /// # Errors
    /// `Unimplemented` where it is off, `NotFound` where the named one is not registered.
    pub(crate) fn status(&self, tenant: Tenant, name: Option<&str>) -> Result<Vec<Region>> {
        self.check_on()?;
        match name {
            Some(name) => Ok(vec![self.find(tenant, name)?.region.clone()]),
            None => {
                let regions = self.lock();
                let own = regions.get(&tenant.id).into_iter().flat_map(BTreeMap::values);
                Ok(own.map(|registered| registered.region.clone()).collect())
            }
        }
    }

    /// Reads the inputs that are outside the request into it, and finds the regions of its outputs. What is read is
    /// added to `held`.
    ///
    /// # Errors
    /// `NotFound` for an unknown region, `InvalidInput` where a slice does not lie in its region or the bytes don't
    /// fit the signature, `Overloaded` where there is no room in flight.
    pub(crate) async fn prepare(
        &self,
        tenant: Tenant,
        held: HeldBytes,
        signature: &Signature,
        decoded: &mut Decoded,
    ) -> Result<OutputRegions> {
        let find = |slice: &RegionSlice| {
            let registered = self.find(tenant, &slice.region)?;
            registered.check(slice).map(|()| registered)
        };
        let mut outputs = Vec::with_capacity(decoded.options.placed.len());
        for (index, slice) in &decoded.options.placed {
            outputs.push((*index, find(slice)?, slice.clone()));
        }
        for OutsideInput { index, sent, slice } in std::mem::take(&mut decoded.outside) {
            let registered = find(&slice)?;
            let bytes = slice.bytes as usize;
            held.add(bytes)?;
            let read = move || registered.read(&slice);
            let data = if held.used() <= LARGE_BYTES { read()? } else { off_reactor(read).await?? };
            decoded.fill(signature, index, sent, data)?;
            held.add(decoded.inputs[index].data.len().saturating_sub(bytes))?;
        }
        Ok(OutputRegions { _held: held, outputs })
    }

    fn find(&self, tenant: Tenant, name: &str) -> Result<Arc<Registered>> {
        self.lock().get(&tenant.id).and_then(|own| own.get(name)).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("no shared memory is registered as '{name}'; register it, or correct the name"),
            )
        })
    }

    /// # Errors
    /// `Unimplemented` where it is off.
    pub(crate) fn check_on(&self) -> Result<()> {
        if self.on {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unimplemented,
            "system shared memory is off; send tensors in the request, or set shared_memory: true for the server",
        ))
    }

    fn check_room(&self, tenant: Tenant, name: &str) -> Result<MutexGuard<'_, ByTenant>> {
        let regions = self.lock();
        if regions.get(&tenant.id).is_some_and(|own| own.contains_key(name)) {
            return Err(invalid(format!("region '{name}' is registered already; unregister it first")));
        }
        if regions.values().map(BTreeMap::len).sum::<usize>() >= REGIONS_MAX {
            return Err(Error::new(
                ErrorKind::Overloaded,
                format!("{REGIONS_MAX} regions are registered, which is the most; unregister some first"),
            ));
        }
        Ok(regions)
    }

    fn lock(&self) -> MutexGuard<'_, ByTenant> {
        // The maps are valid after every single call.
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The regions of one request's outputs. Holds the bytes of its inputs in flight.
#[derive(Debug)]
pub(crate) struct OutputRegions {
    _held: HeldBytes,
    outputs: Vec<(usize, Arc<Registered>, RegionSlice)>,
}

impl OutputRegions {
    /// Writes the outputs that the client wants in its memory.
    ///
    /// # Errors
    /// `InvalidInput` where there is too little room.
    pub(crate) async fn write(self, signature: &Signature, response: &InferResponse) -> Result<()> {
        let mut all = Vec::with_capacity(self.outputs.len());
        for (index, registered, slice) in &self.outputs {
            let (Some(spec), Some(tensor)) = (signature.outputs.get(*index), response.outputs.get(*index))
            else {
                return Err(Error::new(ErrorKind::Internal, "the answer lacks an output of the signature"));
            };
            let data = tensor.data.clone();
            if data.len() as u64 > slice.bytes {
                return Err(invalid(format!(
                    "output '{}' has {} bytes but shared_memory_byte_size is {}; give it more room",
                    spec.name,
                    data.len(),
                    slice.bytes
                )));
            }
            all.push((registered.clone(), slice.clone(), data));
        }
        let bytes: usize = all.iter().map(|(_, _, data)| data.len()).sum();
        let write =
            move || all.iter().try_for_each(|(registered, slice, data)| registered.write(slice, data));
        if bytes <= LARGE_BYTES { write() } else { off_reactor(write).await? }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const ANY: Tenant = Tenant { id: 0, weight: 1 };

    /// An object in `/dev/shm` that goes with the test.
    struct Object(String);

    impl Object {
        fn new(name: &str, bytes: &[u8]) -> Object {
            let object = Object(format!("inferd-test-{}-{name}", std::process::id()));
            std::fs::write(object.path(), bytes).unwrap();
            object
        }

        fn path(&self) -> String {
            format!("/dev/shm/{}", self.0)
        }
    }

    impl Drop for Object {
        fn drop(&mut self) {
            std::fs::remove_file(self.path()).unwrap();
        }
    }

    fn region(name: &str, key: &str, offset: u64, byte_size: u64) -> Region {
        Region { name: name.into(), key: key.into(), offset, byte_size }
    }

    fn slice(offset: u64, bytes: u64) -> RegionSlice {
        RegionSlice { region: "r".into(), offset, bytes }
    }

    fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.message().to_owned()
    }

    #[test]
    fn a_region_is_read_and_written_within_its_bounds() {
        let object = Object::new("bounds", b"0123456789");
        let regions = Regions::new(true);
        regions.register(ANY, region("r", &format!("/{}", object.0), 2, 6)).unwrap();
        let registered = regions.find(ANY, "r").unwrap();
        registered.check(&slice(1, 5)).unwrap();
        assert_eq!(&registered.read(&slice(1, 5)).unwrap()[..], b"34567");
        registered.write(&slice(5, 1), b"x").unwrap();
        assert_eq!(std::fs::read(object.path()).unwrap(), b"0123456x89");
        for outside in [slice(0, 7), slice(6, 1), slice(u64::MAX, 1), slice(1, u64::MAX)] {
            assert!(message(registered.check(&outside)).contains("do not lie in region 'r'"));
        }
        assert_eq!(regions.status(ANY, None).unwrap().len(), 1);
        regions.unregister(ANY, Some("r")).unwrap();
        assert_eq!(regions.status(ANY, Some("r")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn an_object_that_shrank_is_an_error_and_does_not_grow_again() {
        let object = Object::new("shrunk", &[7; 4096]);
        let regions = Regions::new(true);
        regions.register(ANY, region("r", &object.0, 0, 4096)).unwrap();
        File::options().write(true).open(object.path()).unwrap().set_len(10).unwrap();
        let registered = regions.find(ANY, "r").unwrap();
        assert!(message(registered.read(&slice(0, 4096))).contains("shorter"));
        assert!(message(registered.write(&slice(8, 4), b"four")).contains("shorter"));
        assert_eq!(std::fs::metadata(object.path()).unwrap().len(), 10);
        assert_eq!(registered.read(&slice(0, 10)).unwrap().len(), 10);
    }

    #[test]
    fn only_objects_in_dev_shm_that_are_long_enough_are_taken() {
        let object = Object::new("taken", &[0; 16]);
        let link = format!("/dev/shm/{}-link", object.0);
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let regions = Regions::new(true);
        let refused =
            |key: &str, offset, bytes| message(regions.register(ANY, region("r", key, offset, bytes)));
        for key in ["", "/", ".", "..", "/..", "../etc/passwd", "a/b", "//a", "a\0b", &"x".repeat(300)] {
            assert!(refused(key, 0, 1).contains("in /dev/shm"), "{key}");
        }
        assert!(refused("/nothing-of-this-name", 0, 1).contains("cannot be opened"));
        assert!(refused(link.trim_start_matches("/dev/shm/"), 0, 1).contains("cannot be opened"));
        std::fs::remove_file(link).unwrap();
        for (offset, bytes) in [(0, 17), (16, 1), (0, 0), (u64::MAX, 1), (1, u64::MAX)] {
            assert!(refused(&object.0, offset, bytes).contains("has 16 bytes"), "{offset} {bytes}");
        }
        regions.register(ANY, region("r", &object.0, 0, 16)).unwrap();
        assert!(refused(&object.0, 0, 16).contains("registered already"));
        assert!(message(regions.register(ANY, region("", &object.0, 0, 16))).contains("name"));
    }

    #[test]
    fn regions_are_counted_and_nothing_works_while_it_is_off() {
        let object = Object::new("counted", &[0; 16]);
        let regions = Regions::new(true);
        for number in 0..REGIONS_MAX {
            regions.register(ANY, region(&number.to_string(), &object.0, 0, 16)).unwrap();
        }
        assert_eq!(
            regions.register(ANY, region("more", &object.0, 0, 16)).unwrap_err().kind(),
            ErrorKind::Overloaded
        );
        regions.unregister(ANY, None).unwrap();
        assert!(regions.status(ANY, None).unwrap().is_empty());
        let off = Regions::new(false);
        for error in [
            off.register(ANY, region("r", &object.0, 0, 16)).unwrap_err(),
            off.unregister(ANY, None).unwrap_err(),
            off.status(ANY, None).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unimplemented);
            assert!(error.message().contains("shared_memory: true"), "{error}");
        }
    }

    #[test]
    fn two_tenants_may_give_regions_the_same_name_and_see_their_own() {
        let (one, other) = (Object::new("one", b"1111"), Object::new("other", b"2222"));
        let (gold, tin) = (Tenant { id: 1, weight: 4 }, Tenant { id: 2, weight: 1 });
        let regions = Regions::new(true);
        regions.register(gold, region("r", &one.0, 0, 4)).unwrap();
        regions.register(tin, region("r", &other.0, 0, 4)).unwrap();
        let read = |tenant| regions.find(tenant, "r").unwrap().read(&slice(0, 4)).unwrap();
        assert_eq!((&read(gold)[..], &read(tin)[..]), (&b"1111"[..], &b"2222"[..]));
        assert_eq!(regions.status(gold, None).unwrap().len(), 1);
        regions.unregister(gold, None).unwrap();
        assert_eq!(regions.status(gold, Some("r")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(&read(tin)[..], b"2222");
        assert_eq!(regions.status(ANY, Some("r")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
