"""Names of what master and workers tell each other beside Locust's own messages.

PREPARE  master → worker   `{"test", "share", "classes", "host", "seed", "records"}`: start, connect, wait
READY    worker → master   `{"test", "drain_limit_s"}`, or with `failure` and `is_input` instead
START    alone             the test starts; workers hear it from Locust, which sends them users then
LATE     worker → master   users came, but no PREPARE: it joined a test that runs
BEGUN    worker → master   `{"test"}`: calls fall due from now on
REPORT   worker → master   `{"test", "found"}`: what came since the last; travels in Locust's own reports
FINISH   master → worker   `{"test"}`: nothing more falls due; drain
FINAL    worker → master   the last report, with the totals that all reports must add up to
"""

from typing import Final

PREPARE: Final = "holdfast_prepare"
READY: Final = "holdfast_ready"
START: Final = "holdfast_start"
LATE: Final = "holdfast_late"
BEGUN: Final = "holdfast_begun"
REPORT: Final = "holdfast_report"
FINISH: Final = "holdfast_finish"
FINAL: Final = "holdfast_final"
