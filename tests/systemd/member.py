"""A daemon whose loop stands still at a named moment (streamlstm/fault_points.py) while its other threads live.

Runs in the machine of check_systemd.py in the place of the program: `python member.py run -c ..`. The moment is in the
file beside this one, when it starts: {"point": "polled", "from": 20, "seconds": 3600} holds the loop's thread up for so
long at each passage from the 20th on.
"""

import json
import sys
import time
from pathlib import Path

from streamlstm import fault_points
from streamlstm.cli import main as streamlstm


class Holdup:
    """The hook of one moment."""

    def __init__(self, point: str, first: int, seconds: float) -> None:
        self._point = point
        self._left = first - 1
        self._seconds = seconds

    def __call__(self, name: str) -> None:
        if name != self._point:
            return
        if self._left:
            self._left -= 1
        else:
            time.sleep(self._seconds)


if __name__ == "__main__":
    file = Path(__file__).with_suffix(".json")
    if file.exists():
        fault = json.loads(file.read_text())
        fault_points.hook = Holdup(fault["point"], fault["from"], fault["seconds"])
    streamlstm(sys.argv[1:])
