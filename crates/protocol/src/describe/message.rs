//! Descriptions as gRPC messages.
//!
//! Reads the values of the parent module, hands on messages. Does not know the calls that they answer.

use std::collections::HashMap;

use inferd_types::TensorSpec;

use super::{INPUT_SCHEMAS, IndexEntry, Model, Server, Span, Statistics, config_datatype};
use crate::pb::inference as pb;

/// The response of `ServerMetadata`.
pub fn server_metadata_pb(server: &Server<'_>) -> pb::ServerMetadataResponse {
    pb::ServerMetadataResponse {
        name: server.name.to_owned(),
        version: server.version.to_owned(),
        extensions: server.extensions.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// The response of `ModelMetadata`.
pub fn model_metadata_pb(model: &Model<'_>) -> pb::ModelMetadataResponse {
    let tensors = |specs: &[TensorSpec]| {
        specs
            .iter()
            .map(|spec| pb::model_metadata_response::TensorMetadata {
                name: spec.name.as_ref().to_owned(),
                datatype: spec.datatype.name().to_owned(),
                shape: spec.shape.clone(),
            })
            .collect()
    };
    pb::ModelMetadataResponse {
        name: model.name.to_owned(),
        versions: model.versions.iter().map(u64::to_string).collect(),
        platform: model.platform.to_owned(),
        inputs: tensors(&model.signature.inputs),
        outputs: tensors(&model.signature.outputs),
    }
}

/// The response of `ModelConfig`.
pub fn config_pb(model: &Model<'_>) -> pb::ModelConfigResponse {
    let datatype = |spec: &TensorSpec| {
        pb::DataType::from_str_name(&config_datatype(spec.datatype)).unwrap_or(pb::DataType::TypeInvalid)
            as i32
    };
    let versions = model.versions.iter().map(|version| i64::try_from(*version).unwrap_or(i64::MAX)).collect();
    let policy =
        pb::model_version_policy::PolicyChoice::Specific(pb::model_version_policy::Specific { versions });
    let scheduling = pb::model_config::SchedulingChoice::DynamicBatching(pb::ModelDynamicBatching {});
    let parameter =
        |(name, value): (&str, String)| (name.to_owned(), pb::ModelParameter { string_value: value });
    let schemas = model.input_schemas().map(|schemas| (INPUT_SCHEMAS, schemas));
    let parameters = model.parameters.iter().map(|(name, value)| (*name, (*value).to_owned())).chain(schemas);
    let input = |(index, spec): (usize, &TensorSpec)| pb::ModelInput {
        name: spec.name.as_ref().to_owned(),
        data_type: datatype(spec),
        dims: model.dims(&spec.shape).to_vec(),
        optional: model.signature.default_of(index).is_some(),
    };
    let output = |(index, spec): (usize, &TensorSpec)| pb::ModelOutput {
        name: spec.name.as_ref().to_owned(),
        data_type: datatype(spec),
        dims: model.dims(&spec.shape).to_vec(),
        label_filename: model.label_file(index).unwrap_or_default().to_owned(),
    };
    pb::ModelConfigResponse {
        config: Some(pb::ModelConfig {
            name: model.name.to_owned(),
            platform: model.platform.to_owned(),
            version_policy: Some(pb::ModelVersionPolicy { policy_choice: Some(policy) }),
            max_batch_size: model.batch_size_max(),
            input: model.signature.inputs.iter().enumerate().map(input).collect(),
            output: model.signature.outputs.iter().enumerate().map(output).collect(),
            instance_group: vec![instance_group(model)],
            default_model_filename: String::new(),
            scheduling_choice: model.signature.batched().then_some(scheduling),
            parameters: parameters.map(parameter).collect::<HashMap<_, _>>(),
            backend: model.backend().to_owned(),
            model_transaction_policy: Some(pb::ModelTransactionPolicy {
                decoupled: model.signature.decoupled,
            }),
            runtime: String::new(),
        }),
    }
}

fn instance_group(model: &Model<'_>) -> pb::ModelInstanceGroup {
    use pb::model_instance_group::Kind;
    pb::ModelInstanceGroup {
        name: format!("{}_0", model.name),
        count: i32::try_from(model.replicas).unwrap_or(i32::MAX),
        gpus: model.gpus.iter().map(|gpu| i32::try_from(*gpu).unwrap_or(i32::MAX)).collect(),
        kind: Kind::from_str_name(model.instance_kind()).unwrap_or(Kind::Auto) as i32,
    }
}

/// The response of `ModelStatistics`.
pub fn statistics_pb(models: &[Statistics<'_>]) -> pb::ModelStatisticsResponse {
    pb::ModelStatisticsResponse { model_stats: models.iter().map(statistics).collect() }
}

fn statistics(model: &Statistics<'_>) -> pb::ModelStatistics {
    let span = |span: Span| Some(pb::StatisticDuration { count: span.count, ns: span.nanos });
    let batch = |batch: &super::BatchStatistics| pb::InferBatchStatistics {
        batch_size: batch.rows,
        compute_input: span(batch.compute_input),
        compute_infer: span(batch.compute_infer),
        compute_output: span(batch.compute_output),
    };
    pb::ModelStatistics {
        name: model.name.to_owned(),
        version: model.version.to_string(),
        last_inference: model.last_inference_ms,
        inference_count: model.inference_count,
        execution_count: model.execution_count,
        inference_stats: Some(pb::InferStatistics {
            success: span(model.success),
            fail: span(model.fail),
            queue: span(model.queue),
            compute_input: span(model.compute_input),
            compute_infer: span(model.compute_infer),
            compute_output: span(model.compute_output),
            cache_hit: span(model.cache_hit),
            cache_miss: span(model.cache_miss),
        }),
        batch_stats: model.batches.iter().map(batch).collect(),
        memory_usage: Vec::new(),
        response_stats: HashMap::new(),
    }
}

/// The response of `RepositoryIndex`.
pub fn index_pb(entries: &[IndexEntry<'_>]) -> pb::RepositoryIndexResponse {
    let models = entries
        .iter()
        .map(|entry| pb::repository_index_response::ModelIndex {
            name: entry.name.to_owned(),
            version: entry.version.to_string(),
            state: entry.state.name().to_owned(),
            reason: entry.reason.to_owned(),
        })
        .collect();
    pb::RepositoryIndexResponse { models }
}
