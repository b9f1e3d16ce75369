"""Who reads the output, and with what, changes nothing about the command's end."""

import os
import subprocess
import sys

SCRIPT = """
import sys
from holdfast_chaos.consoles import wide_console
console = wide_console()
for _ in range(50_000):
    console.print("\u2713 a line")
sys.exit(7)
"""


def test_a_reader_who_leaves_does_not_end_the_command() -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (7, b"")


def test_a_mark_that_the_encoding_lacks_does_not_end_the_command() -> None:
    script = SCRIPT.replace("50_000", "1")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout.strip()) == (7, b"? a line"), done.stderr
