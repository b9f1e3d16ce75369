"""The bare peer of coordination: a grpc.aio server that parses what it is sent and answers what it was told to."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from holdfast.coordination.v1 import activation_service_pb2, decision_service_pb2

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in (activation_service_pb2, decision_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def handler(method: MethodDescriptor, answer: bytes) -> "grpc.RpcMethodHandler[Any, Any]":
    """Parses the request, and answers with a message of its own, as a server without any state would."""
    response_type = GetMessageClass(method.output_type)
    kept = response_type.FromString(answer)

    async def answering(_request: Message, _context: object) -> Message:
        response = response_type()
        response.CopyFrom(kept)
        return response

    return grpc.unary_unary_rpc_method_handler(
        answering,
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=response_type.SerializeToString,
    )


async def main(answers: dict[str, str], ready: Path) -> None:
    """Serves until ended."""
    server = grpc.aio.server()
    for path, answer in answers.items():
        method = METHODS[path]
        handlers = {method.name: handler(method, bytes.fromhex(answer))}
        service = method.containing_service.full_name
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ready.write_text(json.dumps({"grpc": f"127.0.0.1:{port}"}))  # noqa: ASYNC240  # nobody is served yet
    await server.wait_for_termination()


asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[3])))
