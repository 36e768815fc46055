//! A loaded model's inputs and outputs, as the runtime declares them.
//!
//! Reads a session, hands on its tensor inputs and outputs, and a description of the others. Knows nothing of
//! batching: whether dimension 0 counts rows is up to `batching`.

use std::ffi::{CString, c_char};
use std::ptr;

use inferd_types::{DataType, Error, ErrorKind, Result, TensorSpec};
use ort_sys::{ONNXType, OrtSession, OrtTensorTypeAndShapeInfo, OrtTypeInfo};

use crate::api::{Api, Failure, Owned};

/// A declared dimension.
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
    /// `None` if the model declares no shape, not even a rank.
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
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    /// Outputs that are not tensors of a supported type.
    pub(crate) left_out: Vec<Unserved>,
    /// Constants that a run could replace and that the settings don't name: old exporters make every weight one.
    pub(crate) replaceable: Vec<String>,
    /// Inputs that are optional to the model, and required of requests.
    pub(crate) optional: Vec<String>,
}

impl Graph {
    /// The inputs and outputs of `session`. Its inputs are followed by the replaceable constants among `named`.
    ///
    /// # Errors
    /// `ModelFailed` if an input is not a tensor of a type that the protocol has, or no output is one.
    pub(crate) fn read(api: Api, session: &Owned<OrtSession>, named: &[String]) -> Result<Graph> {
        let reader = Reader { api, session };
        let fault = |failure: Failure| {
            Error::new(ErrorKind::ModelFailed, "the model's inputs and outputs can't be read")
                .with_detail(failure.message)
        };
        let table = api.table();
        let (mut inputs, mut optional) = (Vec::new(), Vec::new());
        for index in 0..reader.count(table.SessionGetInputCount).map_err(fault)? {
            let name = reader.name(table.SessionGetInputName, index).map_err(fault)?;
            match reader.value(table.SessionGetInputTypeInfo, index, name).map_err(fault)? {
                Ok(port) => inputs.push(port.with_rank()?),
                Err(Unserved { kind: Kind::Optional(Some(port)), .. }) => {
                    optional.push(port.name());
                    inputs.push(port.with_rank()?);
                }
                Err(unserved) => return Err(unserved.input_error()),
            }
        }
        let mut replaceable = Vec::new();
        for index in 0..reader.count(table.SessionGetOverridableInitializerCount).map_err(fault)? {
            let name = reader.name(table.SessionGetOverridableInitializerName, index).map_err(fault)?;
            if !named.iter().any(|wanted| wanted.as_bytes() == name.as_bytes()) {
                replaceable.push(name.to_string_lossy().into_owned());
                continue;
            }
            match reader.value(table.SessionGetOverridableInitializerTypeInfo, index, name).map_err(fault)? {
                Ok(port) => inputs.push(port.with_rank()?),
                Err(unserved) => return Err(unserved.input_error()),
            }
        }
        let (mut outputs, mut left_out) = (Vec::new(), Vec::new());
        for index in 0..reader.count(table.SessionGetOutputCount).map_err(fault)? {
            let name = reader.name(table.SessionGetOutputName, index).map_err(fault)?;
            match reader.value(table.SessionGetOutputTypeInfo, index, name).map_err(fault)? {
                Ok(port) => outputs.push(port),
                Err(unserved) => left_out.push(unserved),
            }
        }
        if outputs.is_empty() {
            return Err(no_outputs(&left_out));
        }
        Ok(Graph { inputs, outputs, left_out, replaceable, optional })
    }
}

/// An input or output that can't be served.
#[derive(Debug)]
pub(crate) struct Unserved {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Sequence,
    SequenceOfMaps,
    Map,
    /// The value is of a tensor, or of something else.
    Optional(Option<Port>),
    SparseTensor,
    /// A tensor of a type that the protocol lacks.
    Tensor(&'static str),
    Unknown,
}

impl Unserved {
    /// The name and the kind, for the list of left-out outputs.
    pub(crate) fn description(&self) -> String {
        let what = match &self.kind {
            Kind::Sequence => "a sequence of tensors, whose number is not fixed",
            Kind::SequenceOfMaps => "a sequence of maps",
            Kind::Map => "a map",
            Kind::Optional(_) => "it may have no value",
            Kind::SparseTensor => "a sparse tensor",
            Kind::Tensor(datatype) => return format!("'{}' (the protocol has no {datatype})", self.name),
            Kind::Unknown => "a value of an unknown kind",
        };
        format!("'{}' ({what})", self.name)
    }

    fn input_error(&self) -> Error {
        let (what, remedy) = match &self.kind {
            Kind::Sequence => {
                ("a sequence of tensors", "with an input for each tensor, or one for all of them")
            }
            Kind::Map | Kind::SequenceOfMaps => {
                ("a map", "without the operator that takes the map, with a tensor of a column for each key")
            }
            Kind::Optional(_) => ("an optional value that is no tensor", "with an input that is a tensor"),
            Kind::SparseTensor => ("a sparse tensor", "with a dense tensor"),
            Kind::Tensor(datatype) => {
                let what = format!("a tensor of {datatype}, which the protocol lacks");
                let remedy = format!("with a wider type, and a Cast to {datatype} after the input");
                return unservable_input(&self.name, &what, &remedy);
            }
            Kind::Unknown => ("of an unknown kind", "with tensors"),
        };
        unservable_input(&self.name, what, remedy)
    }
}

impl Port {
    /// Sets the last dimension to `classes`: it was a map with that many keys.
    ///
    /// # Errors
    /// `ModelFailed` if the model declares, or returned, another size, which the runtime refuses in a map too.
    pub(crate) fn set_classes(&mut self, classes: usize) -> Result<()> {
        let size = Dim::Fixed(classes as u64);
        let dims = self.dims.get_or_insert_with(|| vec![Dim::Free; 2]);
        let (shape, rank) = (format!("{dims:?}"), dims.len());
        match dims.last_mut() {
            Some(last) if rank <= 2 && (!last.is_fixed() || *last == size) => *last = size,
            _ => {
                let message = format!(
                    "output '{}' has {classes} classes and the shape {shape}; one score for each class is expected",
                    self.name()
                );
                return Err(Error::new(ErrorKind::ModelFailed, message));
            }
        }
        Ok(())
    }

    /// Adjusts to the shape of a run's output: dimensions that differ from the declaration, of which the runtime
    /// only warns, become free.
    pub(crate) fn settle(&mut self, shape: &[u64]) {
        match &mut self.dims {
            Some(dims) if dims.len() == shape.len() => {
                for (dim, size) in dims.iter_mut().zip(shape) {
                    if dim.is_fixed() && *dim != Dim::Fixed(*size) {
                        *dim = Dim::Free;
                    }
                }
            }
            dims => *dims = Some(vec![Dim::Free; shape.len()]),
        }
    }

    /// # Errors
    /// `ModelFailed` if it declares no shape.
    fn with_rank(self) -> Result<Port> {
        if self.dims.is_some() {
            return Ok(self);
        }
        let message = format!(
            "input '{}' has no declared shape, so requests can't be checked\n\
             help: export the model with shapes; a dimension may be free, but their number must be known",
            self.name()
        );
        Err(Error::new(ErrorKind::ModelFailed, message))
    }
}

fn unservable_input(name: &str, what: &str, remedy: &str) -> Error {
    let message = format!(
        "input '{name}' is {what}; only tensors of the protocol's types can be sent\n\
         help: export the model {remedy}"
    );
    Error::new(ErrorKind::ModelFailed, message)
}

fn no_outputs(left_out: &[Unserved]) -> Error {
    let listed: Vec<_> = left_out.iter().map(Unserved::description).collect();
    let message = format!(
        "no output of the model is a tensor that can be served: {}\n\
         help: export the model with tensors as outputs; converters of classifiers have the option zipmap=False",
        listed.join(", ")
    );
    Error::new(ErrorKind::ModelFailed, message)
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

    /// The port, or what else it is.
    fn value(&self, get: GetType, index: usize, name: CString) -> Result<Result<Port, Unserved>, Failure> {
        let info = self.api.create(self.api.table().ReleaseTypeInfo, |out| {
            // SAFETY: the session is live, `index` is below the count it gave, `out` a place for the result.
            unsafe { get(self.session.as_ptr(), index, out) }
        })?;
        // SAFETY: `info` is live until the end of this function.
        let port = unsafe { self.port(info.as_ptr(), name.clone()) }?;
        Ok(port.map_err(|kind| Unserved { name: name.to_string_lossy().into_owned(), kind }))
    }

    /// The port, or what else it is.
    ///
    /// # Safety
    /// `info` must be alive.
    unsafe fn port(&self, info: *const OrtTypeInfo, name: CString) -> Result<Result<Port, Kind>, Failure> {
        const TENSOR: i32 = ONNXType::ONNX_TYPE_TENSOR as i32;
        const SEQUENCE: i32 = ONNXType::ONNX_TYPE_SEQUENCE as i32;
        const MAP: i32 = ONNXType::ONNX_TYPE_MAP as i32;
        const OPTIONAL: i32 = ONNXType::ONNX_TYPE_OPTIONAL as i32;
        const SPARSE: i32 = ONNXType::ONNX_TYPE_SPARSETENSOR as i32;
        let table = self.api.table();
        // SAFETY: the caller says that `info` is alive; what it contains is made anew and owned here.
        unsafe {
            Ok(match self.kind(info)? {
                TENSOR => return self.tensor(info, name),
                SEQUENCE => {
                    let mut sequence = ptr::null();
                    self.api.check((table.CastTypeInfoToSequenceTypeInfo)(info, &raw mut sequence))?;
                    let inner = self
                        .api
                        .create(table.ReleaseTypeInfo, |out| (table.GetSequenceElementType)(sequence, out))?;
                    let maps = self.kind(inner.as_ptr())? == MAP;
                    Err(if maps { Kind::SequenceOfMaps } else { Kind::Sequence })
                }
                OPTIONAL => {
                    let mut optional = ptr::null();
                    self.api.check((table.CastTypeInfoToOptionalTypeInfo)(info, &raw mut optional))?;
                    let inner = self.api.create(table.ReleaseTypeInfo, |out| {
                        (table.GetOptionalContainedTypeInfo)(optional, out)
                    })?;
                    let tensor = self.kind(inner.as_ptr())? == TENSOR;
                    let port = if tensor { self.tensor(inner.as_ptr(), name)?.ok() } else { None };
                    Err(Kind::Optional(port))
                }
                MAP => Err(Kind::Map),
                SPARSE => Err(Kind::SparseTensor),
                _ => Err(Kind::Unknown),
            })
        }
    }

    /// # Safety
    /// `info` must be alive.
    unsafe fn kind(&self, info: *const OrtTypeInfo) -> Result<i32, Failure> {
        // A number, not the enumeration: a newer library may have other values.
        let mut kind = 0i32;
        // SAFETY: the caller says that it is alive; an enumeration of C has the size of an int.
        unsafe {
            self.api.check((self.api.table().GetOnnxTypeFromTypeInfo)(info, (&raw mut kind).cast()))?;
        }
        Ok(kind)
    }

    /// # Safety
    /// `info` must be alive, and a tensor's.
    unsafe fn tensor(&self, info: *const OrtTypeInfo, name: CString) -> Result<Result<Port, Kind>, Failure> {
        let table = self.api.table();
        let (mut tensor, mut code) = (ptr::null::<OrtTensorTypeAndShapeInfo>(), 0i32);
        // SAFETY: as the caller says; the tensor's info lives in `info`, and an enumeration of C has the size of an
        // int.
        unsafe {
            self.api.check((table.CastTypeInfoToTensorInfo)(info, &raw mut tensor))?;
            self.api.check((table.GetTensorElementType)(tensor, (&raw mut code).cast()))?;
        }
        let Some(datatype) = datatype(code) else { return Ok(Err(Kind::Tensor(type_name(code)))) };
        // SAFETY: `tensor` lives in `info`.
        let dims = unsafe { self.dims(tensor) }?;
        Ok(Ok(Port { name, datatype, dims }))
    }

    /// # Safety
    /// `tensor` must be alive.
    unsafe fn dims(&self, tensor: *const OrtTensorTypeAndShapeInfo) -> Result<Option<Vec<Dim>>, Failure> {
        let table = self.api.table();
        // SAFETY: the caller says that it is alive.
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

/// The sizes of `tensor`'s dimensions, negative if free.
///
/// # Safety
/// `tensor` must be alive.
pub(crate) unsafe fn tensor_sizes(
    api: Api,
    tensor: *const OrtTensorTypeAndShapeInfo,
) -> Result<Vec<i64>, Failure> {
    let table = api.table();
    let mut rank = 0;
    // SAFETY: the caller says that the info is alive; `rank` is a place for the result.
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

/// ONNX's names of types that the protocol lacks.
fn type_name(code: i32) -> &'static str {
    const NAMES: [(ort_sys::ONNXTensorElementDataType, &str); 12] = {
        use ort_sys::ONNXTensorElementDataType::*;
        [
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_COMPLEX64, "COMPLEX64"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_COMPLEX128, "COMPLEX128"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FN, "FLOAT8E4M3FN"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FNUZ, "FLOAT8E4M3FNUZ"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2, "FLOAT8E5M2"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2FNUZ, "FLOAT8E5M2FNUZ"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E8M0, "FLOAT8E8M0"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT4E2M1, "FLOAT4E2M1"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT4, "UINT4"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4, "INT4"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT2, "UINT2"),
            (ONNX_TENSOR_ELEMENT_DATA_TYPE_INT2, "INT2"),
        ]
    };
    NAMES.iter().find(|(known, _)| *known as i32 == code).map_or("type of that number", |(_, name)| name)
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
        assert_eq!(type_name(22), "INT4");
    }
}
