//! Facts about a loaded model for its operator: start-up table, `explain`, parameters of the configuration.
//!
//! Reads what loading found out, hands on texts by name. Knows nothing of how they are shown.

use std::collections::BTreeMap;

use crate::api::Api;
use crate::graph::Unserved;
use crate::runner::Runner;
use crate::settings::LoadSettings;
use crate::source::Source;

/// Number of constants that are named. If there are more, most are weights.
const REPLACEABLE_NAMED_MAX: usize = 4;
/// Maximum length of a fact in bytes, within the transport's limit.
const FACT_MAX_BYTES: usize = 1000;

/// The facts about the model that `runner` runs.
pub(crate) fn facts(
    api: Api,
    settings: &LoadSettings,
    runner: &Runner,
    source: &Source,
) -> BTreeMap<String, String> {
    let graph = &runner.graph;
    let mut facts = settings.facts.clone();
    facts.extend(source.facts.clone());
    facts.extend([
        ("runtime".to_owned(), format!("onnxruntime {}", api.version())),
        ("device".to_owned(), settings.device.to_string()),
        ("threads".to_owned(), settings.threads.max(1).to_string()),
        ("outputs_in_place".to_owned(), format!("{} of {}", runner.bound_outputs(), graph.outputs.len())),
    ]);
    if let Some(first) = graph.replaceable.first() {
        let names: Vec<_> = graph.replaceable.iter().map(|name| format!("'{name}'")).collect();
        let shown = names[..names.len().min(REPLACEABLE_NAMED_MAX)].join(", ");
        let rest = names.len().saturating_sub(REPLACEABLE_NAMED_MAX);
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let remedy = format!("requests may send them if they are named: optional: {{{first}: null}}");
        facts.insert("constants_to_replace".to_owned(), format!("{shown}{more} ({remedy})"));
    }
    if !graph.optional.is_empty() {
        let names = format!("'{}'", graph.optional.join("', '"));
        let text = format!("{names} (the model can do without; a request must send a value)");
        facts.insert("required_inputs".to_owned(), text);
    }
    let left: Vec<_> =
        graph.left_out.iter().map(Unserved::description).chain(source.left_out.iter().cloned()).collect();
    if !left.is_empty() {
        facts.insert("left_out".to_owned(), left.join(", "));
    }
    for fact in facts.values_mut() {
        shorten(fact);
    }
    facts
}

/// Truncates `text` if it is too long for a fact.
fn shorten(text: &mut String) {
    if text.len() > FACT_MAX_BYTES {
        text.truncate(text.floor_char_boundary(FACT_MAX_BYTES));
        text.push('…');
    }
}
