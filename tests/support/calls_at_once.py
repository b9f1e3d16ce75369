"""Many calls at a time by the engine's own means, in a process of its own so that its memory can be told.

`python -m support.calls_at_once ADDRESS CALLS ROOM_BYTES` prints {"codes": {code: count}, "details": [text],
"held_bytes": left at the end, "rss_bytes": the most that the process had} once all have ended.
"""

import asyncio
import json
import re
import sys
from collections import Counter
from pathlib import Path

from holdfast_loadtests.channels import Channel, Prepared, expire
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.framing import frame
from holdfast_loadtests.room import Room
from holdfast_loadtests.targets import Target

DEADLINE_S = 60.0


def most_resident_bytes() -> int:
    """The most that this program had in RAM; getrusage would count what its parent had when it was started, too."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def main(address: str, calls: int, room_bytes: int) -> None:
    loop = asyncio.get_running_loop()
    target, expiry, room = Target(address), Expiry(loop, expire), Room(room_bytes)
    channel = Channel(0, target, expiry, room=room)
    assert await channel.connect() == ""
    prepared = Prepared(target.block("/p.S/M", DEADLINE_S), DEADLINE_S, takes_many=False)
    ends = [loop.create_future() for _ in range(calls)]
    for end in ends:
        channel.start(prepared, frame([b"hi"]), end.set_result)
    answers = await asyncio.gather(*ends)
    channel.close()
    expiry.close()
    await channel.wait_closed()
    told = {
        "codes": Counter(answer.code for answer in answers),
        "details": sorted({answer.details for answer in answers}),
        "held_bytes": room.held_bytes,
        "rss_bytes": most_resident_bytes(),
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
