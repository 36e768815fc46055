//! What a loaded model takes and gives, as the runtime declares it.
//!
//! Reads a session, hands on its tensor inputs and outputs and the names of those that are left out.
//! Knows nothing of batching: whether dimension 0 counts rows is for the probe to find out.

use std::ffi::{CString, c_char};
use std::ptr;

use inferd_types::{DataType, Error, ErrorKind, Result, TensorSpec};
use ort_sys::{ONNXType, OrtSession, OrtTensorTypeAndShapeInfo, OrtTypeInfo};

use crate::api::{Api, Failure, Owned};

/// One dimension as the model declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dim {
    Fixed(u64),
    /// Equal names stand for equal sizes within one run.
    Named(String),
    Free,
}

impl Dim {
    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self, Dim::Fixed(_))
    }
}

/// One input or output.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) name: CString,
    pub(crate) datatype: DataType,
    /// `None` where the model declares no shape, not even a rank.
    pub(crate) dims: Option<Vec<Dim>>,
}

impl Port {
    pub(crate) fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    pub(crate) fn dims(&self) -> &[Dim] {
        self.dims.as_deref().unwrap_or_default()
    }

    pub(crate) fn spec(&self) -> TensorSpec {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Dim::Named(_) | Dim::Free => -1,
        };
        TensorSpec {
            name: self.name().into(),
            datatype: self.datatype,
            shape: self.dims().iter().map(size).collect(),
        }
    }
}

/// The inputs and outputs that can be served.
#[derive(Debug)]
pub(crate) struct Graph {
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    /// Outputs that are no tensors of a known type: name and what each is.
    pub(crate) left_out: Vec<(String, &'static str)>,
    /// Constants that a run could replace, and that nobody named: old exporters make every weight one.
    pub(crate) replaceable: Vec<String>,
}

impl Graph {
    /// What `session` takes and gives. Behind its inputs stand the constants among `named` that a run can replace.
    ///
    /// # Errors
    /// `ModelFailed` where an input is no tensor of a type that the protocol has, or no output is one.
    pub(crate) fn read(api: Api, session: &Owned<OrtSession>, named: &[String]) -> Result<Graph> {
        let reader = Reader { api, session };
        let fault = |failure: Failure| {
            Error::new(ErrorKind::ModelFailed, "the model's inputs and outputs can't be read")
                .with_detail(failure.message)
        };
        let table = api.table();
        let mut inputs = Vec::new();
        for index in 0..reader.count(table.SessionGetInputCount).map_err(fault)? {
            let name = reader.name(table.SessionGetInputName, index).map_err(fault)?;
            match reader.port(table.SessionGetInputTypeInfo, index, name).map_err(fault)? {
                Ok(port) if port.dims.is_none() => return Err(shapeless_input(&port.name())),
                Ok(port) => inputs.push(port),
                Err((name, what)) => return Err(unservable_input(&name, what)),
            }
        }
        let mut replaceable = Vec::new();
        for index in 0..reader.count(table.SessionGetOverridableInitializerCount).map_err(fault)? {
            let name = reader.name(table.SessionGetOverridableInitializerName, index).map_err(fault)?;
            if !named.iter().any(|wanted| wanted.as_bytes() == name.as_bytes()) {
                replaceable.push(name.to_string_lossy().into_owned());
                continue;
            }
            match reader.port(table.SessionGetOverridableInitializerTypeInfo, index, name).map_err(fault)? {
                Ok(port) if port.dims.is_none() => return Err(shapeless_input(&port.name())),
                Ok(port) => inputs.push(port),
                Err((name, what)) => return Err(unservable_input(&name, what)),
            }
        }
        let (mut outputs, mut left_out) = (Vec::new(), Vec::new());
        for index in 0..reader.count(table.SessionGetOutputCount).map_err(fault)? {
            let name = reader.name(table.SessionGetOutputName, index).map_err(fault)?;
            match reader.port(table.SessionGetOutputTypeInfo, index, name).map_err(fault)? {
                Ok(port) => outputs.push(port),
                Err(left) => left_out.push(left),
            }
        }
        if outputs.is_empty() {
            return Err(no_outputs(&left_out));
        }
        Ok(Graph { inputs, outputs, left_out, replaceable })
    }
}

fn shapeless_input(name: &str) -> Error {
    Error::new(
        ErrorKind::ModelFailed,
        format!(
            "input '{name}' has no declared shape, so requests can't be checked\n\
             help: export the model with shapes; a dimension may be free, but their number must be known"
        ),
    )
}

fn unservable_input(name: &str, what: &str) -> Error {
    Error::new(
        ErrorKind::ModelFailed,
        format!("input '{name}' is a {what}; only tensors of the protocol's types can be served"),
    )
}

fn no_outputs(left_out: &[(String, &'static str)]) -> Error {
    let listed: Vec<_> = left_out.iter().map(|(name, what)| format!("'{name}' is a {what}")).collect();
    Error::new(
        ErrorKind::ModelFailed,
        format!(
            "no output of the model is a tensor that can be served: {}\n\
             help: a scikit-learn classifier gives tensors when it is converted with zipmap=False",
            listed.join(", ")
        ),
    )
}

type GetCount = unsafe extern "system" fn(*const OrtSession, *mut usize) -> ort_sys::OrtStatusPtr;
type GetName = unsafe extern "system" fn(
    *const OrtSession,
    usize,
    *mut ort_sys::OrtAllocator,
    *mut *mut c_char,
) -> ort_sys::OrtStatusPtr;
type GetType =
    unsafe extern "system" fn(*const OrtSession, usize, *mut *mut OrtTypeInfo) -> ort_sys::OrtStatusPtr;

struct Reader<'a> {
    api: Api,
    session: &'a Owned<OrtSession>,
}

impl Reader<'_> {
    fn count(&self, get: GetCount) -> Result<usize, Failure> {
        let mut count = 0;
        // SAFETY: the session is live and `count` a place for the result.
        self.api.check(unsafe { get(self.session.as_ptr(), &raw mut count) })?;
        Ok(count)
    }

    fn name(&self, get: GetName, index: usize) -> Result<CString, Failure> {
        let table = self.api.table();
        let (mut allocator, mut text) = (ptr::null_mut(), ptr::null_mut::<c_char>());
        // SAFETY: the default allocator is static in the library; the name is copied and then freed with the
        // allocator that made it.
        unsafe {
            self.api.check((table.GetAllocatorWithDefaultOptions)(&raw mut allocator))?;
            self.api.check(get(self.session.as_ptr(), index, allocator, &raw mut text))?;
            let name = std::ffi::CStr::from_ptr(text).to_owned();
            self.api.check((table.AllocatorFree)(allocator, text.cast()))?;
            Ok(name)
        }
    }

    /// The port, or its name and what else it is.
    fn port(
        &self,
        get: GetType,
        index: usize,
        name: CString,
    ) -> Result<Result<Port, (String, &'static str)>, Failure> {
        let table = self.api.table();
        let info = self.api.create(table.ReleaseTypeInfo, |out| {
            // SAFETY: the session is live, `index` is below the count it gave, `out` a place for the result.
            unsafe { get(self.session.as_ptr(), index, out) }
        })?;
        // Numbers, not the enumerations: a newer library may give a value that those don't have.
        let (mut kind, mut tensor) = (0i32, ptr::null::<OrtTensorTypeAndShapeInfo>());
        // SAFETY: `info` is live; an enumeration of C has the size of an int; the tensor info lives in `info`.
        unsafe {
            self.api.check((table.GetOnnxTypeFromTypeInfo)(info.as_ptr(), (&raw mut kind).cast()))?;
            self.api.check((table.CastTypeInfoToTensorInfo)(info.as_ptr(), &raw mut tensor))?;
        }
        if kind != ONNXType::ONNX_TYPE_TENSOR as i32 || tensor.is_null() {
            return Ok(Err((name.to_string_lossy().into_owned(), kind_name(kind))));
        }
        let mut code = 0i32;
        // SAFETY: `tensor` lives in `info`; an enumeration of C has the size of an int.
        self.api.check(unsafe { (table.GetTensorElementType)(tensor, (&raw mut code).cast()) })?;
        let Some(datatype) = datatype(code) else {
            return Ok(Err((
                name.to_string_lossy().into_owned(),
                "tensor of a type that the protocol lacks",
            )));
        };
        // SAFETY: `tensor` lives in `info`.
        let dims = unsafe { self.dims(tensor) }?;
        Ok(Ok(Port { name, datatype, dims }))
    }

    /// # Safety
    /// `tensor` must be alive.
    unsafe fn dims(&self, tensor: *const OrtTensorTypeAndShapeInfo) -> Result<Option<Vec<Dim>>, Failure> {
        let table = self.api.table();
        // SAFETY: the caller says that it lives.
        if !unsafe { (table.TensorTypeAndShape_HasShape)(tensor) } {
            return Ok(None);
        }
        // SAFETY: as above.
        let sizes = unsafe { tensor_sizes(self.api, tensor) }?;
        let mut symbols = vec![ptr::null::<c_char>(); sizes.len()];
        // SAFETY: there is room for as many symbols as there are dimensions; they live in the type info.
        let status = unsafe { (table.GetSymbolicDimensions)(tensor, symbols.as_mut_ptr(), symbols.len()) };
        self.api.check(status)?;
        let dims = sizes.iter().zip(symbols).map(|(size, symbol)| {
            let symbol = if symbol.is_null() {
                String::new()
            } else {
                // SAFETY: a symbol that is not null is a C string that lives in the type info.
                unsafe { std::ffi::CStr::from_ptr(symbol).to_string_lossy().into_owned() }
            };
            match u64::try_from(*size) {
                Ok(size) => Dim::Fixed(size),
                Err(_) if symbol.is_empty() => Dim::Free,
                Err(_) => Dim::Named(symbol),
            }
        });
        Ok(Some(dims.collect()))
    }
}

/// The sizes of `tensor`'s dimensions, negative where they are free.
///
/// # Safety
/// `tensor` must be alive.
pub(crate) unsafe fn tensor_sizes(
    api: Api,
    tensor: *const OrtTensorTypeAndShapeInfo,
) -> Result<Vec<i64>, Failure> {
    let table = api.table();
    let mut rank = 0;
    // SAFETY: the caller says that the info lives; `rank` is a place for the result.
    api.check(unsafe { (table.GetDimensionsCount)(tensor, &raw mut rank) })?;
    let mut sizes = vec![0i64; rank];
    // SAFETY: as above, and there is room for `rank` sizes.
    api.check(unsafe { (table.GetDimensions)(tensor, sizes.as_mut_ptr(), rank) })?;
    Ok(sizes)
}

/// The protocol's type for the runtime's `code`.
pub(crate) fn datatype(code: i32) -> Option<DataType> {
    DataType::ALL.into_iter().find(|datatype| element_type(*datatype) as i32 == code)
}

/// The runtime's type for `datatype`.
pub(crate) fn element_type(datatype: DataType) -> ort_sys::ONNXTensorElementDataType {
    use ort_sys::ONNXTensorElementDataType::*;
    match datatype {
        DataType::Bool => ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Fp32 => ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bf16 => ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Bytes => ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

fn kind_name(kind: i32) -> &'static str {
    const SEQUENCE: i32 = ONNXType::ONNX_TYPE_SEQUENCE as i32;
    const MAP: i32 = ONNXType::ONNX_TYPE_MAP as i32;
    const OPTIONAL: i32 = ONNXType::ONNX_TYPE_OPTIONAL as i32;
    const SPARSE: i32 = ONNXType::ONNX_TYPE_SPARSETENSOR as i32;
    match kind {
        SEQUENCE => "sequence",
        MAP => "map",
        OPTIONAL => "optional value",
        SPARSE => "sparse tensor",
        _ => "value of an unknown kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_the_protocol_has_one_of_the_runtime_and_back() {
        for known in DataType::ALL {
            assert_eq!(datatype(element_type(known) as i32), Some(known));
        }
        assert_eq!(
            datatype(ort_sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4 as i32),
            None
        );
    }
}
