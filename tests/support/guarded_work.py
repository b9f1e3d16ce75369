"""A worker to stop and wake: `python -m support.guarded_work TARGET TTL_S`.

It writes `write FENCE` to what it guards (its standard output) every `EVERY_S`, and each time asks its session for the
fence just before. `told` says that its work was told to stop.
"""

import asyncio
import os
import sys

from holdfast.client import Client, SessionLostError

EVERY_S = 0.3
"""Long beside the time a reader takes to stop it after a line: it is stopped while it sleeps, never in mid-write."""


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def main(target: str, ttl_s: float) -> None:
    async with Client(target, namespace="test") as client, client.session("worker", ttl_s=ttl_s) as session:
        say(f"lease {session.lease}")
        try:
            async with session.guard():
                while True:
                    try:
                        say(f"write {session.fence}")
                    except SessionLostError:
                        say("refused by itself")
                        raise
                    await asyncio.sleep(EVERY_S)
        except SessionLostError:
            say("told")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
