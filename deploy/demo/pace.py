"""How fast it goes: answers per second, and the daemon's commit time as its own metrics tell it."""

from collections.abc import Callable

from deploy.demo.daemon import Figures

PERIOD_SECONDS = 1.0


class Pace:
    """Renews its figures about once a second; `now` is monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.begin = now
        self.events_per_second = 0.0
        self.commit_ms: float | None = None
        self._period_began = now
        self._events = 0
        self._last_event = now
        self._figures: Figures | None = None

    def observe(self, now: float, events: int, read_figures: Callable[[], Figures | None]) -> None:
        """Count `events` that have just come; at the end of a period, ask `read_figures` too."""
        self._events += events
        if events:
            self._last_event = now
        if now - self._period_began >= PERIOD_SECONDS:
            self.events_per_second = self._events / (now - self._period_began)
            self._period_began, self._events = now, 0
            figures = read_figures()
            if figures is not None and self._figures is not None:
                self.commit_ms = figures.commit_ms_since(self._figures)
            self._figures = figures or self._figures

    def idle_seconds(self, now: float) -> float:
        """Since the last answer."""
        return now - self._last_event
