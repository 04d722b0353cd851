"""`sluicegate run` with so many workers, whatever the file says: fleet_process.py FILE N [TRAIT].

The memory store counts in each worker alone, which is what shows a test who answered; a gateway
file is not allowed to combine the two. `broken` workers end before they begin; a `hasty`
supervisor kills stragglers early.
"""

import sys
from pathlib import Path
from typing import Any

from proxy.policy.load import Loaded
from proxy.process import Process, run_process
from proxy.workers import post, supervisor
from proxy.workers.supervisor import Supervisor


class Fleet(Process):
    def _gateway(self, loaded: Loaded, sources: dict[str, Any]) -> Supervisor:
        return Supervisor(self._path, int(sys.argv[2]), sources)


if sys.argv[3:] == ["broken"]:
    post._FLAGS = ("-c", "raise SystemExit(3)")  # type: ignore[misc]
if sys.argv[3:] == ["hasty"]:
    supervisor.DRAIN_MARGIN = 0.5  # type: ignore[misc]
sys.exit(run_process(Fleet(Path(sys.argv[1]))))
