//! Opens a model in ONNX Runtime with options for a worker among others.
//!
//! Reads the settings for loading, hands on a session. Knows nothing of the model's inputs and outputs.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use inferd_types::{Error, ErrorKind, Result};
use ort_sys::{ExecutionMode, GraphOptimizationLevel, OrtSession, OrtSessionOptions};

use crate::api::{Api, Failure, Owned, c_string};
use crate::settings::{Device, LoadSettings};

const CUDA: &str = "CUDAExecutionProvider";
/// The folder of external data of a model in memory.
const WEIGHTS_FOLDER: &CStr = c"session.model_external_initializers_file_folder_path";

/// Loads the model's file, or `changed` instead, and prepares it to run.
///
/// # Errors
/// `ModelFailed` if the file is missing or not a model, or the device does not exist.
pub(crate) fn open(api: Api, settings: &LoadSettings, changed: Option<&[u8]>) -> Result<Owned<OrtSession>> {
    let name = settings.path.file_name().unwrap_or(settings.path.as_os_str()).to_string_lossy();
    let full = settings.path.display().to_string();
    if !settings.path.is_file() {
        return Err(Error::new(ErrorKind::ModelFailed, format!("{name} does not exist")).with_detail(full));
    }
    let fault = |failure: Failure| {
        // The text may contain the file's whole path, which is for the operator alone.
        let said = failure.message.replace(&full, &name);
        Error::new(ErrorKind::ModelFailed, format!("{name} can't be loaded: {said}"))
            .with_detail(failure.message)
    };
    let options = options(api, settings).map_err(fault)?;
    if let Device::Cuda(number) = settings.device {
        add_cuda(api, &options, number)?;
    }
    let path = c_string(settings.path.as_os_str().as_bytes());
    let table = api.table();
    let Some(changed) = changed else {
        return api
            .create(table.ReleaseSession, |out| {
                // By path, not from memory: external data is found relative to it.
                // SAFETY: environment, path and options are alive; `out` is a place for the result.
                unsafe { (table.CreateSession)(api.env(), path.as_ptr(), options.as_ptr(), out) }
            })
            .map_err(fault);
    };
    let folder = settings.path.parent().unwrap_or(Path::new("."));
    let folder = c_string(folder.as_os_str().as_bytes());
    set(api, &options, WEIGHTS_FOLDER, &folder).map_err(fault)?;
    api.create(table.ReleaseSession, |out| {
        let (data, len) = (changed.as_ptr().cast(), changed.len());
        // SAFETY: environment and options are alive, the bytes are parsed before this returns; `out` is a place for
        // the result.
        unsafe { (table.CreateSessionFromArray)(api.env(), data, len, options.as_ptr(), out) }
    })
    .map_err(fault)
}

fn options(api: Api, settings: &LoadSettings) -> Result<Owned<OrtSessionOptions>, Failure> {
    let table = api.table();
    let options = api.create(table.ReleaseSessionOptions, |out| {
        // SAFETY: `out` is a place for the result.
        unsafe { (table.CreateSessionOptions)(out) }
    })?;
    let threads = i32::try_from(settings.threads.max(1)).unwrap_or(i32::MAX);
    let raw = options.as_ptr();
    // SAFETY: the options are alive and each function sets one value of theirs.
    unsafe {
        api.check((table.SetSessionGraphOptimizationLevel)(raw, GraphOptimizationLevel::ORT_ENABLE_ALL))?;
        api.check((table.SetSessionExecutionMode)(raw, ExecutionMode::ORT_SEQUENTIAL))?;
        api.check((table.SetIntraOpNumThreads)(raw, threads))?;
        api.check((table.SetInterOpNumThreads)(raw, 1))?;
        // A memory plan is kept for every shape of inputs ever seen. Batches have all sizes, so the plans would
        // accumulate.
        api.check((table.DisableMemPattern)(raw))?;
    }
    // Threads that spin between operators take the core from the gateway and from other replicas, and use up a CPU
    // quota: the whole process is then throttled for the rest of the period, which costs far more than the wake-ups
    // that spinning saves.
    set(api, &options, c"session.intra_op.allow_spinning", c"0")?;
    set(api, &options, c"session.inter_op.allow_spinning", c"0")?;
    // Weights outside the pool of working memory: the pool doubles when it grows, and would keep the memory that
    // packing the weights frees.
    set(api, &options, c"session.use_device_allocator_for_initializers", c"1")?;
    Ok(options)
}

fn set(api: Api, options: &Owned<OrtSessionOptions>, key: &CStr, value: &CStr) -> Result<(), Failure> {
    // SAFETY: the options are alive and both texts are C strings, which the library copies.
    api.check(unsafe { (api.table().AddSessionConfigEntry)(options.as_ptr(), key.as_ptr(), value.as_ptr()) })
}

fn add_cuda(api: Api, options: &Owned<OrtSessionOptions>, number: u32) -> Result<()> {
    let fault = |failure: Failure| {
        Error::new(
            ErrorKind::ModelFailed,
            format!(
                "device cuda:{number} can't be used\n\
                 help: check that the package onnxruntime-gpu finds CUDA and cuDNN and that nvidia-smi lists the GPU"
            ),
        )
        .with_detail(failure.message)
    };
    if !api.providers().map_err(fault)?.iter().any(|provider| provider == CUDA) {
        return Err(Error::new(
            ErrorKind::ModelFailed,
            format!(
                "device cuda:{number} is requested but this ONNX Runtime was built without CUDA\n\
                 help: install onnxruntime-gpu in place of onnxruntime, or set device: cpu"
            ),
        ));
    }
    append_cuda(api, options, number).map_err(fault)
}

fn append_cuda(api: Api, options: &Owned<OrtSessionOptions>, number: u32) -> Result<(), Failure> {
    let table = api.table();
    let cuda = api.create(table.ReleaseCUDAProviderOptions, |out| {
        // SAFETY: `out` is a place for the result.
        unsafe { (table.CreateCUDAProviderOptions)(out) }
    })?;
    let value: CString = c_string(number.to_string());
    let (keys, values) = ([c"device_id".as_ptr()], [value.as_ptr()]);
    // SAFETY: the options are alive, keys and values are one C string each; the library copies all.
    unsafe {
        api.check((table.UpdateCUDAProviderOptions)(cuda.as_ptr(), keys.as_ptr(), values.as_ptr(), 1))?;
        api.check((table.SessionOptionsAppendExecutionProvider_CUDA_V2)(options.as_ptr(), cuda.as_ptr()))
    }
}
