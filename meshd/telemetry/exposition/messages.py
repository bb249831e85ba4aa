"""The messages of the protocol buffer format, described in Python. Pure.

`protobuf` uses them. They are those of `io/prometheus/client/metrics.proto` in
https://github.com/prometheus/client_model, without types that meshd does not send. A description
made here needs no generated code, which is tied to the version of the library that made it.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2

PACKAGE: Final = "io.prometheus.client"
COUNTER: Final = 0
"""Number of the type in `MetricType`, which is sent."""
GAUGE: Final = 1
"""See `COUNTER`."""
HISTOGRAM: Final = 4
"""See `COUNTER`."""
_TYPES: Final = {"COUNTER": COUNTER, "GAUGE": GAUGE, "HISTOGRAM": HISTOGRAM}
_FIELDS: Final = {
    "LabelPair": (("name", 1, "string"), ("value", 2, "string")),
    "Gauge": (("value", 1, "double"),),
    "Exemplar": (
        ("label", 1, "*LabelPair"),
        ("value", 2, "double"),
        ("timestamp", 3, ".google.protobuf.Timestamp"),
    ),
    "Counter": (("value", 1, "double"), ("exemplar", 2, "Exemplar")),
    "Bucket": (
        ("cumulative_count", 1, "uint64"),
        ("upper_bound", 2, "double"),
        ("exemplar", 3, "Exemplar"),
    ),
    "BucketSpan": (("offset", 1, "sint32"), ("length", 2, "uint32")),
    "Histogram": (
        ("sample_count", 1, "uint64"),
        ("sample_sum", 2, "double"),
        ("bucket", 3, "*Bucket"),
        ("schema", 5, "sint32"),
        ("zero_threshold", 6, "double"),
        ("zero_count", 7, "uint64"),
        ("positive_span", 12, "*BucketSpan"),
        ("positive_delta", 13, "*sint64"),
    ),
    "Metric": (
        ("label", 1, "*LabelPair"),
        ("gauge", 2, "Gauge"),
        ("counter", 3, "Counter"),
        ("histogram", 7, "Histogram"),
    ),
    "MetricFamily": (
        ("name", 1, "string"),
        ("help", 2, "string"),
        ("type", 3, "enum"),
        ("metric", 4, "*Metric"),
    ),
}
"""By message: name, number and type of each field; `*` marks a repeated one."""


def _describe() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="meshd/metrics.proto",
        package=PACKAGE,
        syntax="proto2",
        dependency=[timestamp_pb2.DESCRIPTOR.name],
    )
    types = file.enum_type.add(name="MetricType")
    for name, number in _TYPES.items():
        types.value.add(name=name, number=number)
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            _add_field(message, field, number, kind)
    return file


def _add_field(message: Any, name: str, number: int, kind: str) -> None:
    proto = descriptor_pb2.FieldDescriptorProto
    bare = kind.removeprefix("*")
    field = message.field.add(name=name, number=number)
    field.label = proto.LABEL_REPEATED if kind != bare else proto.LABEL_OPTIONAL
    if bare == "enum":
        field.type, field.type_name = proto.TYPE_ENUM, f".{PACKAGE}.MetricType"
    elif bare in _FIELDS or bare.startswith("."):
        field.type = proto.TYPE_MESSAGE
        field.type_name = bare if bare.startswith(".") else f".{PACKAGE}.{bare}"
    else:
        field.type = getattr(proto, f"TYPE_{bare.upper()}")


def _family_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_describe().SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.MetricFamily"))


MetricFamily: Final = _family_class()
"""The class of a family: the library makes the classes of all messages from the description."""
