//! Completes a signature with the operator's settings and validates what the model reported.
//!
//! Reads settings and a signature, changes the signature. Knows nothing of requests.

use crate::settings::ModelSettings;
use crate::{Error, ErrorKind, InputDefault, OutputLabels, Result, Signature, TensorSpec};

impl Signature {
    /// Applies the settings of inputs and outputs, and validates the model's own defaults and schemas.
    ///
    /// # Errors
    /// `ModelFailed`, with the setting and the tensor.
    pub fn complete(&mut self, settings: &ModelSettings) -> Result<()> {
        let failed = |message: String| Error::new(ErrorKind::ModelFailed, message);
        let place = |side: &str, setting: &str, specs: &[TensorSpec], name: &str| {
            specs.iter().position(|spec| *spec.name == *name).ok_or_else(|| {
                let known: Vec<_> = specs.iter().map(|spec| format!("'{}'", spec.name)).collect();
                failed(format!(
                    "{setting}: the model has no {side} '{name}'\nhelp: its {side}s are {}",
                    known.join(", ")
                ))
            })
        };
        self.check_schemas().map_err(failed)?;
        for (name, value) in &settings.optional {
            let index = place("input", "optional", &self.inputs, name)?;
            if !value.is_null() {
                let default = InputDefault::of_value(self.input(index), value)
                    .map_err(|error| failed(format!("optional: '{name}': {}", error.message())))?;
                self.extras.defaults.retain(|other| other.input != default.input);
                self.extras.defaults.push(default);
            } else if self.default_of(index).is_none() {
                return Err(failed(format!(
                    "optional: the model has no default for input '{name}'\n\
                     help: set one in model.yaml: optional: {{{name}: 0}}"
                )));
            }
        }
        for default in &self.extras.defaults {
            let place = self.inputs.iter().position(|spec| spec.name == default.input).ok_or_else(|| {
                failed(format!(
                    "the model reported a default for input '{}', which it does not have",
                    default.input
                ))
            })?;
            default.check(self.input(place)).map_err(|error| {
                failed(format!("the default of input '{}': {}", default.input, error.message()))
            })?;
        }
        for (name, labels) in &settings.labels {
            let output = place("output", "labels", &self.outputs, name)?;
            let output = self.outputs[output].name.clone();
            self.extras.labels.retain(|other| other.output != output);
            let (names, file) = (labels.names.clone(), labels.file.clone());
            self.extras.labels.push(OutputLabels { output, names, file });
        }
        Ok(())
    }

    /// # Errors
    /// A sentence on the first schema that has no input or does not match it.
    pub(crate) fn check_schemas(&self) -> Result<(), String> {
        for (place, schema) in self.extras.schemas.iter().enumerate() {
            let name = &schema.input;
            let Some(spec) = self.inputs.iter().find(|spec| spec.name == *name) else {
                return Err(format!(
                    "the model reported a schema for input '{name}', which it does not have"
                ));
            };
            if self.extras.schemas[..place].iter().any(|other| other.input == *name) {
                return Err(format!("the model reported two schemas for input '{name}'; one is expected"));
            }
            schema.fit(spec).map_err(|error| format!("the schema of input '{name}': {}", error.message()))?;
        }
        Ok(())
    }
}
