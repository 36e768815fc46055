//! Defaults of optional inputs: inputs of the graph with an initializer of the same name.
//!
//! Reads the model's file, hands on the initializers' values, of which the runtime exposes only names and types.
//! Knows nothing of sessions: the graph says which are served.

use inferd_types::values::push_bytes;
use inferd_types::{Error, ErrorKind, InputDefault, Result};

use crate::file::ModelFile;
use crate::file::onnx::{Model, Tensor};
use crate::file::wire::Malformed;
use crate::graph::{Graph, Port, element_type};
use crate::settings::LoadSettings;

/// The defaults of the inputs of `graph` that have an initializer.
///
/// The file is read only if the settings name such inputs.
///
/// # Errors
/// `ModelFailed` if the file can't be read, or a value is external data.
pub(crate) fn defaults(settings: &LoadSettings, graph: &Graph) -> Result<Vec<InputDefault>> {
    let named = |port: &Port| settings.initializers.contains(&port.name());
    if !graph.inputs.iter().any(named) {
        return Ok(Vec::new());
    }
    let unreadable = |detail: String| {
        Error::new(ErrorKind::ModelFailed, "the model's file can't be read for the defaults of its inputs")
            .with_detail(detail)
    };
    let file = ModelFile::open(&settings.path).map_err(|error| unreadable(error.to_string()))?;
    let model = Model::read(file.bytes()).map_err(|Malformed| unreadable("it is malformed".into()))?;
    let mut defaults = Vec::new();
    for port in graph.inputs.iter().filter(|port| named(port)) {
        if let Some(tensor) = model.graph.initializer(&port.name()) {
            defaults.push(default(port, tensor)?);
        }
    }
    Ok(defaults)
}

fn default(port: &Port, tensor: &Tensor<'_>) -> Result<InputDefault> {
    let failed = |what: &str| {
        let name = port.name();
        let help = format!("help: write the value in model.yaml: optional: {{{name}: 0}}");
        Error::new(ErrorKind::ModelFailed, format!("the default of input '{name}' {what}\n{help}"))
    };
    if tensor.external {
        return Err(failed("is kept outside of the model's file"));
    }
    if tensor.data_type != element_type(port.datatype) as i64 {
        return Err(failed("is of another type than the input"));
    }
    let shape: Option<Vec<u64>> = tensor.dims.iter().map(|dim| u64::try_from(*dim).ok()).collect();
    let shape = shape.ok_or_else(|| failed("has a negative size"))?;
    let malformed = |Malformed| failed("is malformed");
    let data = match tensor.numbers().map_err(malformed)? {
        Some(numbers) => numbers,
        None => {
            let mut data = Vec::new();
            for element in tensor.strings().map_err(malformed)? {
                push_bytes(element, &mut data)?;
            }
            data
        }
    };
    Ok(InputDefault { input: port.name().into(), shape, data: data.into() })
}
