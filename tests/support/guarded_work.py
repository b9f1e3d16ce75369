"""A worker to stop and wake: `python -m support.guarded_work TARGET TTL_S HELD`.

It writes `write FENCE` to what it guards (its standard output) every `EVERY_S`, and asks just before for the fence of
what it holds: its session, or a lock (HELD is `session` or `lock`). `told` says that its work was told to stop.
"""

import asyncio
import os
import sys

from holdfast.client import Client, HeldLock, Session, SessionLostError

EVERY_S = 0.3
"""Long beside the time a reader takes to stop it after a line: it is stopped while it sleeps, never in mid-write."""


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def work(held: HeldLock | Session) -> None:
    while True:
        try:
            say(f"write {held.fence}")
        except SessionLostError:
            say("refused by itself")
            raise
        await asyncio.sleep(EVERY_S)


async def main(target: str, ttl_s: float, held: str) -> None:
    async with Client(target, namespace="test") as client, client.session("worker", ttl_s=ttl_s) as session:
        try:
            if held == "lock":
                async with session.lock("it") as lock:
                    await work(lock)
            else:
                async with session.guard():
                    await work(session)
        except SessionLostError:
            say("told")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3]))
