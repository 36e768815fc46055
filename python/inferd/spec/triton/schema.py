"""Schema of a ``config.pbtxt``: Triton's ModelConfig as a protobuf message.

Hands on a message class. Knows nothing of what a field means to inferd.

The text form uses names only, so field numbers follow the order of this file. The messages have their own descriptor
pool: a Triton client in the same process defines others of the same names.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

__all__ = ["ENUMS", "MESSAGES", "config_class"]

_PACKAGE = "inferd_triton"

ENUMS = {
    "DataType": "TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16 TYPE_INT32"
    " TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16",
    "InstanceKind": "KIND_AUTO KIND_GPU KIND_CPU KIND_MODEL",
    "SecondaryDeviceKind": "KIND_NVDLA",
    "Format": "FORMAT_NONE FORMAT_NHWC FORMAT_NCHW",
    "BatchInputKind": "BATCH_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO"
    " BATCH_MAX_ELEMENT_COUNT_AS_SHAPE BATCH_ITEM_SHAPE BATCH_ITEM_SHAPE_FLATTEN",
    "BatchOutputKind": "BATCH_SCATTER_WITH_INPUT_SHAPE",
    "ModelPriority": "PRIORITY_DEFAULT PRIORITY_MAX PRIORITY_MIN",
    "TimeoutAction": "REJECT DELAY",
    "ControlKind": "CONTROL_SEQUENCE_START CONTROL_SEQUENCE_READY CONTROL_SEQUENCE_END CONTROL_SEQUENCE_CORRID",
}
"""Values by enumeration name; the first is the default."""

MESSAGES = {
    "ModelConfig": """
        string name
        string platform
        string backend
        string runtime
        ModelVersionPolicy version_policy
        int32 max_batch_size
        repeated ModelInput input
        repeated ModelOutput output
        repeated BatchInput batch_input
        repeated BatchOutput batch_output
        ModelOptimizationPolicy optimization
        ModelDynamicBatching dynamic_batching @scheduling_choice
        ModelSequenceBatching sequence_batching @scheduling_choice
        ModelEnsembling ensemble_scheduling @scheduling_choice
        repeated ModelInstanceGroup instance_group
        string default_model_filename
        map<string, string> cc_model_filenames
        map<string, string> metric_tags
        map<string, ModelParameter> parameters
        repeated ModelWarmup model_warmup
        ModelOperations model_operations
        ModelTransactionPolicy model_transaction_policy
        ModelRepositoryAgents model_repository_agents
        ModelResponseCache response_cache
        ModelMetrics model_metrics
    """,
    "ModelVersionPolicy": """
        Latest latest @policy_choice
        All all @policy_choice
        Specific specific @policy_choice
    """,
    "Latest": "uint32 num_versions",
    "All": "",
    "Specific": "repeated int64 versions",
    "ModelInput": """
        string name
        DataType data_type
        Format format
        repeated int64 dims
        ModelTensorReshape reshape
        bool is_shape_tensor
        bool allow_ragged_batch
        bool optional
        bool is_non_linear_format_io
    """,
    "ModelOutput": """
        string name
        DataType data_type
        repeated int64 dims
        ModelTensorReshape reshape
        string label_filename
        bool is_shape_tensor
        bool is_non_linear_format_io
    """,
    "ModelTensorReshape": "repeated int64 shape",
    "BatchInput": """
        BatchInputKind kind
        repeated string target_name
        DataType data_type
        repeated string source_input
    """,
    "BatchOutput": """
        repeated string target_name
        BatchOutputKind kind
        repeated string source_input
    """,
    "ModelInstanceGroup": """
        string name
        InstanceKind kind
        int32 count
        ModelRateLimiter rate_limiter
        repeated int32 gpus
        repeated SecondaryDevice secondary_devices
        repeated string profile
        bool passive
        string host_policy
    """,
    "ModelRateLimiter": """
        repeated Resource resources
        uint32 priority
    """,
    "Resource": """
        string name
        bool global
        uint32 count
    """,
    "SecondaryDevice": """
        SecondaryDeviceKind kind
        int64 device_id
    """,
    "ModelOptimizationPolicy": """
        Graph graph
        ModelPriority priority
        Cuda cuda
        ExecutionAccelerators execution_accelerators
        PinnedMemoryBuffer input_pinned_memory
        PinnedMemoryBuffer output_pinned_memory
        uint32 gather_kernel_buffer_threshold
        bool eager_batching
    """,
    "Graph": "int32 level",
    "Cuda": """
        bool graphs
        bool busy_wait_events
        repeated GraphSpec graph_spec
        bool output_copy_stream
    """,
    "GraphSpec": """
        int32 batch_size
        map<string, Shape> input
        LowerBound graph_lower_bound
    """,
    "Shape": "repeated int64 dim",
    "LowerBound": """
        int32 batch_size
        map<string, Shape> input
    """,
    "ExecutionAccelerators": """
        repeated Accelerator gpu_execution_accelerator
        repeated Accelerator cpu_execution_accelerator
    """,
    "Accelerator": """
        string name
        map<string, string> parameters
    """,
    "PinnedMemoryBuffer": "bool enable",
    "ModelDynamicBatching": """
        repeated int32 preferred_batch_size
        uint64 max_queue_delay_microseconds
        bool preserve_ordering
        uint64 priority_levels
        uint64 default_priority_level
        ModelQueuePolicy default_queue_policy
        map<uint64, ModelQueuePolicy> priority_queue_policy
    """,
    "ModelQueuePolicy": """
        TimeoutAction timeout_action
        uint64 default_timeout_microseconds
        bool allow_timeout_override
        uint32 max_queue_size
    """,
    "ModelSequenceBatching": """
        StrategyDirect direct @strategy_choice
        StrategyOldest oldest @strategy_choice
        uint64 max_sequence_idle_microseconds
        repeated ControlInput control_input
        repeated State state
        bool iterative_sequence
    """,
    "StrategyDirect": """
        uint64 max_queue_delay_microseconds
        float minimum_slot_utilization
    """,
    "StrategyOldest": """
        int32 max_candidate_sequences
        repeated int32 preferred_batch_size
        uint64 max_queue_delay_microseconds
        bool preserve_ordering
    """,
    "ControlInput": """
        string name
        repeated Control control
    """,
    "Control": """
        ControlKind kind
        repeated int32 int32_false_true
        repeated float fp32_false_true
        repeated bool bool_false_true
        DataType data_type
    """,
    "State": """
        string input_name
        string output_name
        DataType data_type
        repeated int64 dims
        repeated InitialState initial_state
        bool use_same_buffer_for_input_output
        bool use_growable_memory
    """,
    "InitialState": """
        DataType data_type
        repeated int64 dims
        bool zero_data @state_data
        string data_file @state_data
        string name
    """,
    "ModelEnsembling": """
        repeated Step step
        uint32 max_inflight_requests
    """,
    "Step": """
        string model_name
        int64 model_version
        map<string, string> input_map
        map<string, string> output_map
        string model_namespace
    """,
    "ModelParameter": "string string_value",
    "ModelWarmup": """
        string name
        uint32 batch_size
        map<string, WarmupInput> inputs
        uint32 count
    """,
    "WarmupInput": """
        DataType data_type
        repeated int64 dims
        bool zero_data @input_data_type
        bool random_data @input_data_type
        string input_data_file @input_data_type
    """,
    "ModelOperations": "repeated string op_library_filename",
    "ModelTransactionPolicy": "bool decoupled",
    "ModelRepositoryAgents": "repeated Agent agents",
    "Agent": """
        string name
        map<string, string> parameters
    """,
    "ModelResponseCache": "bool enable",
    "ModelMetrics": "repeated MetricControl metric_control",
    "MetricControl": """
        MetricIdentifier metric_identifier
        HistogramOptions histogram_options @metric_options
    """,
    "MetricIdentifier": "string family",
    "HistogramOptions": "repeated double buckets",
}
"""Fields by message name, one per line: ``[repeated] TYPE NAME [@ONEOF]``."""

_LINE = re.compile(
    r"(?P<repeated>repeated )?(?P<type>map<(?P<key>\w+), (?P<value>\w+)>|\w+) (?P<name>\w+)( @(?P<one>\w+))?"
)


@cache
def config_class() -> Any:
    """Return the class of the message ``ModelConfig``."""
    # Imported on use: only Triton repositories need it.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="inferd/triton.proto", package=_PACKAGE, syntax="proto3")
    for name, values in ENUMS.items():
        # protobuf enum values share the enclosing scope, as in C++; a message keeps them apart.
        enum = file.message_type.add(name=f"{name}Scope").enum_type.add(name=name)
        for number, value in enumerate(values.split()):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, line in enumerate(filter(None, map(str.strip, fields.splitlines())), 1):
            _add_field(message, number, line)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.ModelConfig"))


def _add_field(message: Any, number: int, line: str) -> None:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"{line!r} is not a field declaration")
    field = message.field.add(name=found["name"], number=number, label=3 if found["repeated"] or found["key"] else 1)
    if found["key"]:
        # protobuf represents a map as a repeated message of keys and values with this name.
        title = "".join(part.capitalize() for part in found["name"].split("_"))
        entry = message.nested_type.add(name=f"{title}Entry")
        entry.options.map_entry = True
        _set_type(entry.field.add(name="key", number=1, label=1), found["key"])
        _set_type(entry.field.add(name="value", number=2, label=1), found["value"])
        field.type, field.type_name = 11, f".{_PACKAGE}.{message.name}.{entry.name}"
        return
    _set_type(field, found["type"])
    if found["one"]:
        names = [oneof.name for oneof in message.oneof_decl]
        if found["one"] not in names:
            message.oneof_decl.add(name=found["one"])
            names.append(found["one"])
        field.oneof_index = names.index(found["one"])


def _set_type(field: Any, name: str) -> None:
    if name in ENUMS:
        field.type, field.type_name = field.TYPE_ENUM, f".{_PACKAGE}.{name}Scope.{name}"
    elif name in MESSAGES:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{_PACKAGE}.{name}"
    else:
        field.type = getattr(field, f"TYPE_{name.upper()}")
