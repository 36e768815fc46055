//! Opens the model's file for the runtime: unchanged, or with tensors in place of maps and sequences.
//!
//! Reads the settings for loading, hands on a session and what only the file says about its inputs and outputs.
//! Knows nothing of runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use inferd_types::{InputSchema, OutputLabels, Result};
use ort_sys::OrtSession;

use crate::analysis::{Verdict, analyse};
use crate::api::{Api, Owned};
use crate::file::ModelFile;
use crate::file::onnx::Model;
use crate::file::wire::Malformed;
use crate::graph::{Graph, Port};
use crate::rewrite::{Rewritten, rewrite};
use crate::session;
use crate::settings::LoadSettings;

/// Maximum size of class and column names that a worker reports, in bytes.
const NAMES_MAX_BYTES: usize = 32 << 10;
/// Maximum size of names in a fact, in bytes.
const NAMES_IN_FACT_MAX_BYTES: usize = 512;

/// What only the file says about a model's inputs and outputs.
#[derive(Default)]
pub(crate) struct Source {
    /// Column names of outputs that were maps.
    pub(crate) labels: Vec<OutputLabels>,
    /// Column names of inputs that were maps.
    pub(crate) schemas: Vec<InputSchema>,
    /// Replacements of inputs and outputs that are not tensors, for the operator.
    pub(crate) facts: BTreeMap<String, String>,
    /// What clients can't see, and why.
    pub(crate) left_out: Vec<String>,
    model: Bytes,
}

/// The model that the runtime has loaded.
#[derive(Default)]
enum Bytes {
    #[default]
    Unreadable,
    File(ModelFile),
    Changed(Vec<u8>),
}

impl Source {
    /// Loads the model.
    ///
    /// # Errors
    /// `ModelFailed` if the file is missing or not a model, or the device does not exist.
    pub(crate) fn open(api: Api, settings: &LoadSettings) -> Result<(Owned<OrtSession>, Source)> {
        let file = ModelFile::open(&settings.path).ok();
        let bytes = file.as_ref().map(ModelFile::bytes).unwrap_or_default();
        // What can't be parsed here is for the runtime to refuse, or to load all the same.
        let changed = Model::read(bytes).map_or(Ok(None), |model| rewrite(bytes, &model));
        let why = match changed {
            Ok(Some(rewritten)) => match session::open(api, settings, Some(&rewritten.bytes)) {
                Ok(session) => return Ok((session, Source::changed(rewritten))),
                Err(error) => Some(error.message().to_owned()),
            },
            Ok(None) => None,
            Err(why) => Some(why.to_owned()),
        };
        let session = session::open(api, settings, None)?;
        let model = file.map_or(Bytes::Unreadable, Bytes::File);
        let left_out =
            why.map(|why| format!("the tensors in its maps and sequences ({why})")).into_iter().collect();
        Ok((session, Source { left_out, model, ..Source::default() }))
    }

    fn changed(rewritten: Rewritten) -> Source {
        let Rewritten { labels, schemas, split, bytes } = rewritten;
        let column =
            |name: &str, count: usize| format!("'{name}' (a map of {count} keys) as a column for each key");
        let columns: Vec<_> = (labels.iter().map(|one| column(&one.output, one.names.len())))
            .chain(schemas.iter().map(|one| column(&one.input, one.columns.len())))
            .chain(
                split
                    .iter()
                    .map(|(name, parts)| format!("'{name}' (a sequence) as '{}'", parts.join("', '"))),
            )
            .collect();
        let mut facts = BTreeMap::from([("as_tensors".to_owned(), columns.join("; "))]);
        if !labels.is_empty() {
            let each = labels.iter().map(|one| format!("'{}': {}", one.output, listed(&one.names)));
            facts.insert("labels".to_owned(), each.collect::<Vec<_>>().join("; "));
        }
        Source { labels, schemas, facts, left_out: Vec::new(), model: Bytes::Changed(bytes) }
    }

    /// Analyses the independence of rows for the outputs of `graph`. Drops the model.
    pub(crate) fn analyse(&mut self, graph: &Graph) -> Verdict {
        let model = std::mem::take(&mut self.model);
        let bytes = match &model {
            Bytes::Unreadable => return Verdict::Unknown("the model's file can't be read".into()),
            Bytes::File(file) => file.bytes(),
            Bytes::Changed(bytes) => bytes,
        };
        let names = |ports: &[Port]| ports.iter().map(Port::name).collect::<Vec<_>>();
        match Model::read(bytes) {
            Ok(model) => analyse(&model, &names(&graph.inputs), &names(&graph.outputs)),
            Err(Malformed) => Verdict::Unknown("the model's file can't be read".into()),
        }
    }

    /// Drops names that are too many to report.
    pub(crate) fn shorten(&mut self) {
        let (mut room, left_out) = (NAMES_MAX_BYTES, &mut self.left_out);
        let mut fits = |name: &str, names: &[Arc<str>]| {
            let bytes = names.iter().map(|name| name.len() + 3).sum();
            let rest = room.checked_sub(bytes);
            match rest {
                Some(rest) => room = rest,
                None => {
                    left_out.push(format!("names of the {} columns of '{name}' ({bytes} bytes)", names.len()))
                }
            }
            rest.is_some()
        };
        self.labels.retain(|one| fits(&one.output, &one.names));
        self.schemas.retain(|one| fits(&one.input, &one.columns));
    }
}

/// `names` in a line, as many as there is room for.
fn listed(names: &[Arc<str>]) -> String {
    let mut line = String::new();
    for (index, name) in names.iter().enumerate() {
        if line.len() + name.len() > NAMES_IN_FACT_MAX_BYTES {
            return format!("{line}, and {} more", names.len() - index);
        }
        line.push_str(if index == 0 { "" } else { ", " });
        line.push_str(name);
    }
    line
}
