"""A daemon that ends or freezes itself at a named moment: `python -m tests.trust.member run --set ..`.

The moment is in the environment: `kill:produced:3` is SIGKILL at the third passage of `produced`, `stop:..` SIGSTOP.
The product knows nothing of that variable; there it is an unknown setting, and refused. SIGUSR1 prints every thread.
"""

import faulthandler
import os
import signal
import sys
import threading

from streamlstm import fault_points

VARIABLE = "STREAMLSTM_FAULT__POINT"
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Strike:
    """Sends this process the signal at the n-th passage of the point."""

    def __init__(self, text: str) -> None:
        action, self._point, count = text.split(":")
        self._signal = _SIGNALS[action]
        self._left = int(count)
        self._lock = threading.Lock()

    def __call__(self, name: str) -> None:
        if name != self._point:
            return
        with self._lock:
            self._left -= 1
            strikes = self._left == 0
        if strikes:
            os.kill(os.getpid(), self._signal)


def main() -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    text = os.environ.pop(VARIABLE, "")
    if text:
        fault_points.hook = Strike(text)
    from streamlstm.cli import main as streamlstm

    streamlstm(sys.argv[1:])


if __name__ == "__main__":
    main()
