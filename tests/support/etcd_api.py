"""The part of etcd's API that tests speak, described here: its own .proto files are not worth a dependency.

Numbers are those of https://github.com/etcd-io/etcd/blob/v3.6.0/api/etcdserverpb/rpc.proto.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

_MESSAGES = {
    "Header": "revision=3:int64",
    "KeyValue": "key=1:bytes create_revision=2:int64 mod_revision=3:int64 version=4:int64 value=5:bytes lease=6:int64",
    "RangeRequest": "key=1:bytes range_end=2:bytes revision=4:int64",
    "RangeResponse": "header=1:Header kvs=2*:KeyValue count=4:int64",
    "PutRequest": "key=1:bytes value=2:bytes lease=3:int64",
    "DeleteRangeRequest": "key=1:bytes range_end=2:bytes",
    "RequestOp": "request_put=2:PutRequest request_delete_range=3:DeleteRangeRequest",
    "Compare": "result=1:int32 target=2:int32 key=3:bytes mod_revision=6:int64",
    "TxnRequest": "compare=1*:Compare success=2*:RequestOp",
    "TxnResponse": "header=1:Header succeeded=2:bool",
    "CompactionRequest": "revision=1:int64 physical=2:bool",
    "CompactionResponse": "header=1:Header",
    "WatchCreateRequest": "key=1:bytes range_end=2:bytes start_revision=3:int64 prev_kv=6:bool fragment=8:bool",
    "WatchRequest": "create_request=1:WatchCreateRequest",
    "Event": "type=1:int32 kv=2:KeyValue prev_kv=3:KeyValue",
    "WatchResponse": "header=1:Header created=3:bool canceled=4:bool compact_revision=5:int64 cancel_reason=6:string "
    "fragment=7:bool events=11*:Event",
}

_SERVICES = {
    "KV": "Range=RangeRequest>RangeResponse Txn=TxnRequest>TxnResponse Compact=CompactionRequest>CompactionResponse",
    "Watch": "Watch=*WatchRequest>*WatchResponse",
}

TARGET_MOD = 2
EVENT_DELETE = 1


def _described() -> FileDescriptorProto:
    file = FileDescriptorProto(name="etcd_subset.proto", package="etcdserverpb", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields.split():
            label, _, rest = field.partition("=")
            number, _, kind = rest.partition(":")
            added = message.field.add(name=label, number=int(number.rstrip("*")))
            added.label = (
                FieldDescriptorProto.LABEL_REPEATED if number.endswith("*") else FieldDescriptorProto.LABEL_OPTIONAL
            )
            if kind in _MESSAGES:
                added.type, added.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".etcdserverpb.{kind}"
            else:
                added.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    for name, methods in _SERVICES.items():
        service = file.service.add(name=name)
        for method in methods.split():
            label, _, rest = method.partition("=")
            taken, _, given = rest.partition(">")
            added_method = service.method.add(name=label, input_type=f".etcdserverpb.{taken.lstrip('*')}")
            added_method.output_type = f".etcdserverpb.{given.lstrip('*')}"
            added_method.client_streaming, added_method.server_streaming = taken[0] == "*", given[0] == "*"
    return file


def descriptor_set() -> bytes:
    """What is described here, as a serialised FileDescriptorSet: etcd has no reflection."""
    return FileDescriptorSet(file=[_described()]).SerializeToString()


_CLASSES = message_factory.GetMessages([_described()], descriptor_pool.DescriptorPool())


def message(name: str, **fields: object) -> Any:
    """A message of the API."""
    return _CLASSES[f"etcdserverpb.{name}"](**fields)


def _serialized(sent: Message) -> bytes:
    return sent.SerializeToString()


class Etcd:
    """Calls to one etcd."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def _call(self, method: str, request: Message, answer: str) -> Any:
        call = self._channel.unary_unary(
            f"/etcdserverpb.KV/{method}",
            request_serializer=_serialized,
            response_deserializer=_CLASSES[f"etcdserverpb.{answer}"].FromString,
        )
        return call(request, timeout=30, wait_for_ready=True)

    def txn(
        self,
        puts: dict[str, bytes] | None = None,
        deletes: tuple[str, ...] = (),
        expected: dict[str, int] | None = None,
    ) -> Any:
        """A transaction under the condition that keys were last written at revisions (0: are absent)."""
        request = message("TxnRequest")
        for key, revision in (expected or {}).items():
            request.compare.add(target=TARGET_MOD, key=key.encode(), mod_revision=revision)
        for key, value in (puts or {}).items():
            request.success.add(request_put=message("PutRequest", key=key.encode(), value=value))
        for key in deletes:
            request.success.add(request_delete_range=message("DeleteRangeRequest", key=key.encode()))
        return self._call("Txn", request, "TxnResponse")

    def range(self, prefix: str, revision: int = 0) -> Any:
        """Keys that start with a prefix."""
        request = message("RangeRequest", key=prefix.encode(), range_end=_after(prefix), revision=revision)
        return self._call("Range", request, "RangeResponse")

    def compact(self, revision: int) -> None:
        """Forgets history before a revision, and waits until it is gone."""
        request = message("CompactionRequest", revision=revision, physical=True)
        self._call("Compact", request, "CompactionResponse")

    @contextmanager
    def watch(self, prefix: str, start: int, *, prev_kv: bool = False, fragment: bool = False) -> Iterator[Any]:
        """Answers about keys that start with a prefix, from a revision on, the first being that of its creation."""
        call = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=_serialized,
            response_deserializer=_CLASSES["etcdserverpb.WatchResponse"].FromString,
        )
        creation = message(
            "WatchCreateRequest",
            key=prefix.encode(),
            range_end=_after(prefix),
            start_revision=start,
            prev_kv=prev_kv,
            fragment=fragment,
        )
        answers = call(iter([message("WatchRequest", create_request=creation)]), timeout=30, wait_for_ready=True)
        try:
            yield answers
        finally:
            answers.cancel()


def _after(prefix: str) -> bytes:
    return prefix[:-1].encode() + bytes([ord(prefix[-1]) + 1])
