"""A harness that is about to die: `doomed_harness.py OUT TOXIPROXY PROXY MODE`.

It journals an intent to delay, injects it, starts one journalled and one unjournalled process, says `doing` and waits.
MODE: `watched`, `unwatched`, `intent` (dies before the injection), `ends` (leaves as it should).
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from holdfast_chaos import runs
from holdfast_chaos.faults import KINDS, FaultContext
from holdfast_chaos.journal import Journal
from holdfast_chaos.processes import ManagedProcess
from holdfast_chaos.toxiproxy import Toxiproxy
from holdfast_chaos.watchdog import guarded

MEEK = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {MEEK}"


@contextlib.contextmanager
def unwatched(out: Path) -> Iterator[Journal]:
    with runs.registered(out) as run, Journal.open(run.journal) as journal:
        journal.write("run_started", run_id=run.id, harness=run.harness)
        yield journal


@contextlib.contextmanager
def watched(out: Path) -> Iterator[Journal]:
    with guarded(out) as guard:
        yield guard.journal


def start(journal: Journal | None, name: str, code: str, out: Path) -> ManagedProcess:
    log = out / f"{name}.log"
    return ManagedProcess.start(
        name,
        [sys.executable, "-c", code],
        log,
        ready=lambda: b"up" in log.read_bytes(),
        on_start=lambda process: journal and journal.write("process_started", name=name, identity=process.identity),
    )


def main() -> None:
    out, address, proxy, mode = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    context = FaultContext(Toxiproxy(address), [proxy])
    fault = KINDS["latency"]("slow", KINDS["latency"].model.model_validate({"delay": "300ms"}))
    with (unwatched if mode == "unwatched" else watched)(out) as journal:
        processes = [start(journal, "journalled", DEAF, out), start(None, "unjournalled", MEEK, out)]
        journal.write("intent", fault=fault.id, undo=fault.undo_record(context))
        if mode != "intent":
            fault.inject(context)
            journal.write("injected", fault=fault.id)
        sys.stdout.write(" ".join(["doing", *(str(process.identity.pid) for process in processes)]) + "\n")
        sys.stdout.flush()
        if mode != "ends":
            time.sleep(600)


main()
