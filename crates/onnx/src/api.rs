//! ONNX Runtime's C API: the loaded library, its statuses, and owners of what it allocates.
//!
//! Reads the path of a shared library, hands on a table of functions and errors with their texts. Knows nothing of
//! models, tensors or batches.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::ptr::{self, NonNull};

use inferd_types::{Error, ErrorKind, Result};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use ort_sys::{OrtApi, OrtApiBase, OrtEnv, OrtLoggingLevel, OrtStatus, OrtStatusPtr};

/// The version of the C API that this crate was written for: the first that distinguishes a scalar from a tensor
/// without a declared shape.
const API_VERSION: u32 = 24;
const LIBRARY_VERSION_MIN: &str = "1.24";

/// An error of the runtime.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl Failure {
    /// Whether the runtime blames its arguments, not itself or the model.
    pub(crate) fn blames_arguments(&self) -> bool {
        self.code == ort_sys::OrtErrorCode::ORT_INVALID_ARGUMENT as i32
    }
}

/// The library's functions. Cheap to copy: the library is never unloaded.
#[derive(Clone, Copy)]
pub(crate) struct Api {
    table: &'static OrtApi,
    env: NonNull<OrtEnv>,
    version: &'static str,
}

impl Api {
    /// Loads the library and creates its environment. Both live as long as the process: a worker has one model, and
    /// unloading a library whose threads may still run is not safe.
    ///
    /// # Errors
    /// `ModelFailed` if the library is missing, is not ONNX Runtime, or is too old.
    pub(crate) fn open(library: &Path) -> Result<Api> {
        let fault = |what: &str, detail: String| {
            let name = library.file_name().unwrap_or(library.as_os_str()).to_string_lossy();
            Error::new(
                ErrorKind::ModelFailed,
                format!("{name} {what}\nhelp: install the package onnxruntime>={LIBRARY_VERSION_MIN}"),
            )
            .with_detail(format!("{}: {detail}", library.display()))
        };
        // SAFETY: the operator's settings name this library, so its initialisers are as trusted as the model's
        // runtime itself.
        let loaded = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_LOCAL) }
            .map_err(|error| fault("can't be loaded", error.to_string()))?;
        type GetBase = unsafe extern "system" fn() -> *const OrtApiBase;
        // SAFETY: this is the type that every ONNX Runtime declares for this name, and the library stays loaded
        // (it is forgotten below) for as long as anything obtained through it is used.
        let base: Option<&'static OrtApiBase> = unsafe {
            let symbol: Symbol<GetBase> = loaded
                .get(b"OrtGetApiBase")
                .map_err(|error| fault("is not ONNX Runtime", error.to_string()))?;
            symbol().as_ref()
        };
        std::mem::forget(loaded);
        let base = base.ok_or_else(|| fault("is not ONNX Runtime", "no API base".into()))?;
        // SAFETY: both functions may be called at any time; the string and the table are static in the library, and
        // the table is null if the library does not know the version.
        let (version, table) = unsafe {
            let version = CStr::from_ptr((base.GetVersionString)()).to_str().unwrap_or("of unknown version");
            (version, (base.GetApi)(API_VERSION).as_ref())
        };
        let table = table.ok_or_else(|| fault("is too old", format!("this is onnxruntime {version}")))?;
        let mut api = Api { table, env: NonNull::dangling(), version };
        let mut env = ptr::null_mut();
        // Errors only: failures are reported by us, and the warnings of a healthy start are noise in a log.
        // SAFETY: the name is a C string and `env` a place for the result.
        let status = unsafe {
            (table.CreateEnv)(OrtLoggingLevel::ORT_LOGGING_LEVEL_ERROR, c"inferd".as_ptr(), &raw mut env)
        };
        api.check(status).map_err(|failure| fault("can't start", failure.message))?;
        api.env = NonNull::new(env).ok_or_else(|| fault("can't start", "no environment".into()))?;
        Ok(api)
    }

    /// The functions themselves.
    pub(crate) fn table(&self) -> &'static OrtApi {
        self.table
    }

    /// The environment, for creating sessions.
    pub(crate) fn env(&self) -> *mut OrtEnv {
        self.env.as_ptr()
    }

    /// The version of the library.
    pub(crate) fn version(&self) -> &'static str {
        self.version
    }

    /// Converts a status, and frees it.
    pub(crate) fn check(&self, status: OrtStatusPtr) -> Result<(), Failure> {
        let Some(status) = NonNull::new(status.0) else { return Ok(()) };
        // The code is read as a number: a newer library may have codes that the enumeration does not.
        type GetCode = unsafe extern "system" fn(*const OrtStatus) -> c_int;
        // SAFETY: the status is a live one of this library, freed once, after its text was copied; an enumeration
        // of C is returned as an int.
        unsafe {
            let code = std::mem::transmute::<
                unsafe extern "system" fn(*const OrtStatus) -> ort_sys::OrtErrorCode,
                GetCode,
            >(self.table.GetErrorCode);
            let code = code(status.as_ptr());
            let message =
                CStr::from_ptr((self.table.GetErrorMessage)(status.as_ptr())).to_string_lossy().into_owned();
            (self.table.ReleaseStatus)(status.as_ptr());
            Err(Failure { code, message })
        }
    }

    /// Calls `create` with a place for a new object and takes ownership of it.
    pub(crate) fn create<T>(
        &self,
        release: unsafe extern "system" fn(*mut T),
        create: impl FnOnce(*mut *mut T) -> OrtStatusPtr,
    ) -> Result<Owned<T>, Failure> {
        let mut made = ptr::null_mut();
        self.check(create(&raw mut made))?;
        Owned::new(made, release).ok_or_else(|| Failure {
            code: -1,
            message: "the runtime created no object and reported no error".into(),
        })
    }

    /// The execution providers that the library was built with.
    pub(crate) fn providers(&self) -> Result<Vec<String>, Failure> {
        let (mut names, mut count) = (ptr::null_mut::<*mut c_char>(), 0);
        // SAFETY: both are places for results.
        self.check(unsafe { (self.table.GetAvailableProviders)(&raw mut names, &raw mut count) })?;
        let listed = (0..usize::try_from(count).unwrap_or(0))
            // SAFETY: the library returned `count` C strings, which live until they are released below.
            .map(|index| unsafe { CStr::from_ptr(*names.add(index)).to_string_lossy().into_owned() })
            .collect();
        // SAFETY: the list is released once, with the count that came with it.
        self.check(unsafe { (self.table.ReleaseAvailableProviders)(names, count) })?;
        Ok(listed)
    }
}

/// An object of the library that is released on drop.
pub(crate) struct Owned<T> {
    object: NonNull<T>,
    release: unsafe extern "system" fn(*mut T),
}

impl<T> Owned<T> {
    /// Takes ownership of `object`; `None` if it is null. `release` must be the library's function for its type.
    pub(crate) fn new(object: *mut T, release: unsafe extern "system" fn(*mut T)) -> Option<Owned<T>> {
        NonNull::new(object).map(|object| Owned { object, release })
    }

    /// The object, still owned by this.
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the object was made by the library, `release` is the function for its type, and this owner is
        // the only one.
        unsafe { (self.release)(self.object.as_ptr()) }
    }
}

/// `text` as a C string, cut at its first NUL.
pub(crate) fn c_string(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes = text.into();
    bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
    CString::new(bytes).expect("it was cut before its first NUL")
}
