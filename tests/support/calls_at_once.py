"""Many calls at a time by the engine's own means, in a process of its own so that its memory can be told.

`python -m support.calls_at_once ADDRESS CALLS ROOM_BYTES` prints {"codes": {code: count}, "details": [text],
"held_bytes": left at the end, "rss_bytes": the most that the process had} once all have ended.
"""

import asyncio
import json
import resource
import sys
from collections import Counter

from holdfast_loadtests.channels import Channel, Prepared, expire
from holdfast_loadtests.expiry import Expiry
from holdfast_loadtests.framing import frame
from holdfast_loadtests.room import Room
from holdfast_loadtests.targets import Target

DEADLINE_S = 60.0


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
        "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
