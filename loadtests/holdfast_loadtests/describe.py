"""The process that asks a target for its descriptors: `python -m holdfast_loadtests.describe`.

For parents that cannot run an event loop. Reads `{"target", "security", "authority", "metadata"}` from stdin,
writes the serialised FileDescriptorSet to stdout; ends with 3 and a message on stderr where it cannot have it.
"""

import json
import sys

from holdfast.cli import EXIT_WRONG_INPUT, InputError
from holdfast_loadtests.reflection import fetch
from holdfast_loadtests.security import Security
from holdfast_loadtests.targets import target_of


def main() -> int:
    """Asks the one question. Returns the exit code."""
    asked = json.loads(sys.stdin.buffer.read())
    security = Security(**asked["security"]) if asked["security"] else None
    try:
        found = fetch(target_of(asked["target"], security, asked["authority"], asked["metadata"]))
    except (InputError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_WRONG_INPUT
    sys.stdout.buffer.write(found.file_set)
    return 0


if __name__ == "__main__":
    sys.exit(main())
