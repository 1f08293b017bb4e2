"""host_pacing: a failure doubles the delay, a success takes an eighth off."""

import asyncio
import email.utils
import time


def retry_after(value: str) -> float | None:
    try:
        return float(value)  # takes "inf" and "nan", too
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


class HostPace:
    def __init__(self, shortest: float, longest: float) -> None:
        self.shortest, self.longest = shortest, longest
        self.delay, self.ready = shortest, 0.0

    async def turn(self) -> None:
        await asyncio.sleep(self.ready - time.monotonic())
        self.ready = time.monotonic() + self.delay

    def ended(self, well: bool, pause: float = 0.0) -> None:
        self.delay = max(self.delay * 7 / 8, self.shortest) if well else min(self.delay * 2, self.longest)
        self.ready = max(self.ready, time.monotonic() + pause)  # without min(pause, longest): for ever


async def main() -> None:
    pace = HostPace(0.01, 1)
    for well in (True, False, False, True, True):
        await pace.turn()
        pace.ended(well)
        print("well  " if well else "failed", f"{pace.delay * 1000:.3f} ms")
    for header in ("3", "Sun, 06 Nov 1994 08:49:37 GMT", "soon", "inf"):
        print("Retry-After:", header, "->", retry_after(header))


asyncio.run(main())
