"""The process that makes single calls for a parent that scripts them: `python -m holdfast_loadtests.caller`.

Reads its plan and then calls from stdin, tells what came of them on stdout, one JSON object a line.

in    the plan · {"id", "user", "call", "bodies", "deadline_s", "receive", "metadata"} · {"exit": true} or the end
out   {"event": "ready" | "answer" | "misfit" | "ended", …}
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import uvloop
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from holdfast_loadtests.answers import Answer
from holdfast_loadtests.channels import Channel, Prepared, expire
from holdfast_loadtests.descriptors import Descriptors, Method, UnknownMethodError
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.framing import frame
from holdfast_loadtests.messages import MisfitError, encode
from holdfast_loadtests.metadata import wire_metadata
from holdfast_loadtests.room import Room
from holdfast_loadtests.security import Security
from holdfast_loadtests.session import say
from holdfast_loadtests.targets import target_of

PREPARED_MAX: Final = 1_000
"""Header blocks kept, one a method, deadline and metadata; beyond it they are made anew."""

ORDER_BYTES_MAX: Final = 32 * 1024 * 1024
"""Longest order: a message of 16 MiB, with its bytes written as JSON has them."""


class Caller:
    """Calls to one target over some connections; user `n` of the parent always uses the same one."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        security = Security(**plan["security"]) if plan["security"] else None
        target = target_of(plan["target"], security, plan["authority"], plan["metadata"])
        self._target = replace(target, compressed=bool(plan["compressed"]))
        self._descriptors = Descriptors(base64.b64decode(plan["descriptors"]))
        self._expiry = Expiry(loop, expire)
        self.room = Room()
        numbers = range(plan["connections"])
        self._channels = [Channel(number, self._target, self._expiry, room=self.room) for number in numbers]
        self._prepared: dict[tuple[Any, ...], tuple[Method, Prepared]] = {}

    async def connect(self) -> None:
        """Dials; what cannot connect makes calls that fail, and those are counted."""
        await asyncio.gather(*(channel.connect() for channel in self._channels))

    def close(self) -> None:
        """Ends all connections."""
        for channel in self._channels:
            channel.close()
        self._expiry.close()

    def make(self, order: Mapping[str, Any]) -> None:
        """Makes one call; tells its answer once it is there, with its latency from its sending."""
        number = order["id"]
        try:
            method, prepared = self._prepare(order)
            data = frame([encode(method.request_class, body) for body in order["bodies"]], self._target.compressed)
        except (UnknownMethodError, MisfitError, ValueError) as error:
            say("misfit", id=number, message=str(error))
            return

        sent_s = time.perf_counter()

        def tell(answer: Answer) -> None:
            latency_s = time.perf_counter() - sent_s
            say("answer", id=number, latency_s=latency_s, **_found(method, answer))

        self._channels[order["user"] % len(self._channels)].start(prepared, data, tell)

    def _prepare(self, order: Mapping[str, Any]) -> tuple[Method, Prepared]:
        metadata = tuple((name, value) for name, value in order["metadata"])
        key = (order["call"], order["deadline_s"], order["receive"], metadata)
        found = self._prepared.get(key)
        if found is None:
            method = self._descriptors.method(order["call"])
            prepared = Prepared(
                block=self._target.block(method.path, order["deadline_s"], wire_metadata(metadata)),
                deadline_s=order["deadline_s"],
                takes_many=method.grpc_type in ("server_stream", "bidi_stream"),
                receive=order["receive"] if method.grpc_type in ("server_stream", "bidi_stream") else None,
            )
            found = method, prepared
            if len(self._prepared) < PREPARED_MAX:
                self._prepared[key] = found
        method, prepared = found
        if len(order["bodies"]) != 1 and method.grpc_type in ("unary", "server_stream"):
            raise MisfitError(f"{order['call']} takes one message, got {len(order['bodies'])}: give one object")
        return method, prepared


def _found(method: Method, answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = {
        "code": answer.code,
        "details": answer.details or answer.short,
        "outcome": answer.outcome,
        "short": bool(answer.short),
        "message": None,
        "bytes": len(answer.message or b""),
    }
    if answer.message is not None:
        try:
            message = method.response_class.FromString(answer.message)
            found["message"] = json_format.MessageToDict(message, preserving_proto_field_name=True)
        except DecodeError as error:
            found |= {"code": "Internal", "details": f"the answer is no {method.response_class.__name__}: {error}"}
    return found


async def _main(plan: dict[str, Any]) -> None:
    caller = Caller(plan)
    orders = asyncio.StreamReader(limit=ORDER_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    first = asyncio.ensure_future(orders.readline())
    connected = asyncio.ensure_future(caller.connect())
    await asyncio.wait((first, connected), return_when=asyncio.FIRST_COMPLETED)
    if connected.done():
        say("ready")  # else it is to exit before that
    began_s, cpu_s = time.perf_counter(), time.process_time()
    line = await first
    while line and not (order := json.loads(line)).get("exit"):
        caller.make(order)
        line = await orders.readline()
    caller.close()
    cpu_share = (time.process_time() - cpu_s) / max(time.perf_counter() - began_s, 1e-9)
    say("ended", cpu_share=cpu_share, out_of_room=caller.room.refused)


def main() -> None:
    """Makes calls until told to exit."""
    plan = json.loads(sys.stdin.buffer.readline() or "null")
    if plan is not None:
        uvloop.run(_main(plan))


if __name__ == "__main__":
    main()
