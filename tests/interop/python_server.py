"""gRPC's interop test service on grpcio: `python_server.py PROTOSET [CERT KEY]`.

Prints one JSON line, {"grpc": "HOST:PORT"}, once it serves, and ends with its standard input.
"""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection

SERVICE = "grpc.testing.TestService"
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
CODES = {code.value[0]: code for code in grpc.StatusCode}


class TestService:
    """What the cases call, under the methods' names in snake_case; the others are unimplemented."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._message = lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.testing.{name}"))

    def empty_call(self, request, context):
        echo_metadata(context)
        return request

    def unary_call(self, request, context):
        echo_metadata(context)
        echo_status(request, context)
        compress(context, request.response_compressed.value)
        return self._message("SimpleResponse")(payload={"body": bytes(request.response_size)})

    def streaming_output_call(self, request, context):
        compress(context, any(one.compressed.value for one in request.response_parameters))
        yield from self._outputs(request, context)

    def streaming_input_call(self, requests, context):
        total = sum(len(request.payload.body) for request in requests)
        return self._message("StreamingInputCallResponse")(aggregated_payload_size=total)

    def full_duplex_call(self, requests, context):
        echo_metadata(context)
        for request in requests:
            echo_status(request, context)
            yield from self._outputs(request, context)

    def half_duplex_call(self, requests, context):
        for request in list(requests):
            yield from self._outputs(request, context)

    def _outputs(self, request, context):
        for parameters in request.response_parameters:
            if not parameters.compressed.value:
                context.disable_next_message_compression()
            yield self._message("StreamingOutputCallResponse")(payload={"body": bytes(parameters.size)})


def echo_metadata(context) -> None:
    given = dict(context.invocation_metadata())
    if INITIAL in given:
        context.send_initial_metadata([(INITIAL, given[INITIAL])])
    if TRAILING in given:
        context.set_trailing_metadata([(TRAILING, given[TRAILING])])


def echo_status(request, context) -> None:
    if request.HasField("response_status") and request.response_status.code:
        context.abort(CODES[request.response_status.code], request.response_status.message)


def compress(context, wanted: bool) -> None:
    context.set_compression(grpc.Compression.Gzip if wanted else grpc.Compression.NoCompression)


def handlers(pool: descriptor_pool.DescriptorPool):
    implementation = TestService(pool)
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    found = {}
    for method in pool.FindServiceByName(SERVICE).methods:
        function = getattr(implementation, re.sub(r"(?<!^)([A-Z])", r"_\1", method.name).lower(), None)
        if function is not None:
            found[method.name] = kinds[method.client_streaming, method.server_streaming](
                function,
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
            )
    return grpc.method_handlers_generic_handler(SERVICE, found)


def main(protoset: str, *tls: str) -> None:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(Path(protoset).read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 16 << 20)])
    server.add_generic_rpc_handlers([handlers(pool)])
    reflection.enable_server_reflection([SERVICE, reflection.SERVICE_NAME], server, pool)
    if tls:
        cert, key = (Path(name).read_bytes() for name in tls)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, cert)]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(json.dumps({"grpc": f"127.0.0.1:{port}"}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
