"""Ports a run holds are its own until it lets them go, whatever other runs do."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from holdfast_chaos import ports


def test_ports_are_distinct_and_free_and_not_handed_out_again() -> None:
    first, second = ports.reserve(20), ports.reserve(20)
    try:
        held = [*first.ports, *second.ports]
        assert len(set(held)) == 40
        assert all(ports.FIRST <= port <= ports.LAST for port in held)
        for port in held:
            with socket.create_server(("127.0.0.1", port)):
                pass
    finally:
        first.release()
        second.release()


def test_a_port_is_held_against_other_processes_until_released(monkeypatch: pytest.MonkeyPatch) -> None:
    held = ports.reserve(1)
    (port,) = held.ports
    monkeypatch.setattr(ports, "FIRST", port)
    monkeypatch.setattr(ports, "LAST", port)
    program = (
        "from holdfast_chaos import ports\n"
        f"ports.FIRST = ports.LAST = {port}\n"
        "try: print(ports.reserve(1).ports)\n"
        "except ports.PortsExhaustedError as error: print(error)\n"
    )

    def other() -> str:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert "1 loopback ports wanted, 0 free" in other()
    held.release()
    held.release()
    assert str(port) in other().strip("(),\n ")


def test_a_port_something_listens_on_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    held = ports.reserve(1)
    (port,) = held.ports
    with socket.create_server(("127.0.0.1", port)):
        held.release()
        monkeypatch.setattr(ports, "FIRST", port)
        monkeypatch.setattr(ports, "LAST", port)
        with pytest.raises(ports.PortsExhaustedError):
            ports.reserve(1)


def test_the_range_lies_outside_the_one_the_kernel_hands_out() -> None:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except FileNotFoundError:
        first = 49152
    assert first > ports.LAST


def test_where_no_port_can_be_reserved_the_message_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/proc/no-such")
    with pytest.raises(ports.PortsExhaustedError, match="set XDG_RUNTIME_DIR"):
        ports.reserve(1)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_another_user_made_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trap = tmp_path / f"holdfast-{os.getuid()}"
    trap.mkdir()
    os.chown(trap, 12345, 12345)
    with pytest.raises(ports.PortsExhaustedError, match="another user"):
        ports.reserve(1)
