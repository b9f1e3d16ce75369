"""Adds JUnit files up into one closing line; ends 1 unless tests ran and none failed."""

import sys
import xml.etree.ElementTree as ET
from collections import Counter


def main(paths: list[str]) -> int:
    """Prints `N passed, N failed, N skipped` over all files."""
    totals: Counter[str] = Counter()
    for path in paths:
        for suite in ET.parse(path).getroot().iter("testsuite"):
            totals.update({key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")})
    failed = totals["failures"] + totals["errors"]
    passed = totals["tests"] - failed - totals["skipped"]
    sys.stdout.write(f"{passed} passed, {failed} failed, {totals['skipped']} skipped\n")
    return int(bool(failed) or passed == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
