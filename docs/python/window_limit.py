"""window_limit: at most n starts in any window, by a log of the starts."""

import asyncio
import time
from collections import deque


class WindowLimit:
    def __init__(self, calls: int, window: float) -> None:
        self.calls, self.window = calls, window
        self.log: deque[float] = deque()
        self.turn = asyncio.Lock()

    async def acquire(self) -> None:
        async with self.turn:
            while True:
                now = time.monotonic()
                while self.log and now - self.log[0] >= self.window:
                    self.log.popleft()
                if len(self.log) < self.calls:
                    self.log.append(now)  # it counts from here, wherever the request is by then
                    return
                await asyncio.sleep(self.window - (now - self.log[0]))


async def main() -> None:
    limit, started, arrived = WindowLimit(calls=1, window=0.1), [], []

    async def request(latency: float) -> None:
        await limit.acquire()
        started.append(time.monotonic())
        await asyncio.sleep(latency)
        arrived.append(time.monotonic())

    await asyncio.gather(request(0.09), request(0.0))
    print("a window between the starts:  ", started[1] - started[0] >= 0.1)
    print("a window between the arrivals:", abs(arrived[1] - arrived[0]) >= 0.1)


asyncio.run(main())
