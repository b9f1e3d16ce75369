"""Whatever a server does: the load ends in time and in bounded memory, says what the server did, and does not pass."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from support import hostile_servers as hostile
from support.echo_server_descriptors import registry_descriptors

LIST = "holdfast.registry.v1.AgentRegistryService/ListAgents"

RSS_BYTES_MAX = 200 << 20
"""The generator has some 60 MiB at rest; a message of an answer may have 16, a window as much."""

TESTS = Path(__file__).parents[2]
AT_ONCE = 4
HANG_S = 150.0

DUE = 35
"""Calls of each load: 50 a second for 700 ms."""

SERVERS = {
    "speaks HTTP/1": (hostile.speaks_http1, "the server speaks HTTP/1, not HTTP/2"),
    "closes at once": (hostile.closes_at_once, "the server closed the connection"),
    "sends no settings": (hostile.sends_no_settings, "no HTTP/2 settings within 5 s"),
    "never answers": (hostile.never_answers, "the deadline of 0.5 s passed"),
    "garbage": (hostile.sends_garbage, "the server broke a rule of HTTP/2: FRAME_SIZE_ERROR"),
    "resets everything": (hostile.resets_everything, "the server reset the stream: INTERNAL_ERROR"),
    "giant frames": (hostile.sends_giant_frames, "FRAME_SIZE_ERROR: a DATA frame of 16777215 bytes"),
    "giant messages": (hostile.claims_giant_messages, "a message of 2147483648 bytes; at most 16777216 are taken"),
    "ignores windows": (hostile.ignores_windows, "the deadline of 0.5 s passed"),
    "header bombs": (hostile.sends_header_bombs, "the server broke a rule of HTTP/2: ENHANCE_YOUR_CALM"),
    "endless CONTINUATION": (hostile.continues_for_ever, "the server broke a rule of HTTP/2: ENHANCE_YOUR_CALM"),
    "bad HPACK": (hostile.sends_bad_hpack, "the server broke a rule of HTTP/2: COMPRESSION_ERROR"),
    "endless 1xx": (hostile.informs_for_ever, "more than 1000 frames that move nothing"),
    "PING flood": (hostile.PING_FLOOD, "answers wait to be read"),
    "SETTINGS flood": (hostile.SETTINGS_FLOOD, "more than 1000 frames that move nothing"),
    "RST_STREAM flood": (hostile.RESET_FLOOD, "the server reset the stream: INTERNAL_ERROR"),
    "WINDOW_UPDATE flood": (hostile.WINDOW_FLOOD, "more than 100000 WINDOW_UPDATEs"),
    "shuts its window": (hostile.shuts_its_window, "the server's flow-control window was closed"),
}


@dataclass
class Outcome:
    """How a load against a server ended; `rss_bytes` is the most that its generator had."""

    code: int
    stdout: str
    stderr: str
    rss_bytes: int


def load(address: str, protoset: str) -> Outcome:
    began_s = time.monotonic()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "holdfast", "load", address, LIST, "--protoset", protoset, "--json",
            "--rate", "50", "--for", "700ms", "--deadline", "500ms", "-d", '{"parent": "namespaces/x"}',
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    most, seen = 0, psutil.Process(process.pid)
    with process:
        while process.poll() is None and time.monotonic() - began_s < HANG_S:
            try:
                most = max([most, *(each.memory_info().rss for each in seen.children())])
            except psutil.NoSuchProcess:
                continue
            time.sleep(0.02)
        hangs = process.poll() is None
        if hangs:
            process.kill()
        stdout, stderr = process.communicate()
    assert not hangs, f"still running after {HANG_S:g} s: {stderr}"
    return Outcome(process.returncode, stdout, stderr, most)


def wrong_with(name: str, found: Outcome) -> str:
    """What a load did not do as it should; nothing where all is right."""
    if found.code != 2:
        return f"ended {found.code}: {found.stdout}{found.stderr}"
    told = json.loads(found.stdout)
    texts = [entry["text"] for entry in told["wrong_answers"]]
    if not any(SERVERS[name][1] in text for text in texts):
        return f"does not name {SERVERS[name][1]!r}: {texts}"
    if not told["outcomes"].keys() <= {"indefinite", "refused"}:
        return f"says of answers that never came: {told['outcomes']}"
    if told["calls"] + told["never_sent"] != DUE or told["unended"]:
        return f"lost calls of {DUE}: {found.stdout}"
    return "" if 0 < found.rss_bytes < RSS_BYTES_MAX else f"took {found.rss_bytes >> 20} MiB"


def test_a_hostile_server_is_named_and_neither_hangs_nor_fills_nor_passes_a_load(tmp_path):
    protoset = tmp_path / "registry.binpb"
    protoset.write_bytes(registry_descriptors().file_set)

    def against(name: str) -> str:
        with hostile.HostileServer(SERVERS[name][0]) as server:
            return wrong_with(name, load(server.address, str(protoset)))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = dict(zip(SERVERS, pool.map(against, SERVERS), strict=True))
    assert {name: text for name, text in wrong.items() if text} == {}


def test_messages_that_are_never_complete_do_not_fill_a_generator_however_many_calls_there_are():
    calls, sent_bytes, room_bytes = 100, 15 << 18, 32 << 20
    assert calls * sent_bytes > RSS_BYTES_MAX + room_bytes
    command = [sys.executable, "-m", "support.calls_at_once"]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"}
    with hostile.HostileServer(hostile.ends_no_message(calls)) as server:
        arguments = [server.address, str(calls), str(room_bytes)]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=HANG_S)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    holding = room_bytes // sent_bytes
    assert told["codes"] == {"Unavailable": holding, "ResourceExhausted": calls - holding}, told
    assert any("the answers under way hold 32 MiB, and may hold 32 MiB" in text for text in told["details"])
    assert told["held_bytes"] == 0
    assert told["rss_bytes"] < RSS_BYTES_MAX
