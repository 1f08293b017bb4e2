"""The jobs of benches/semaphores.rs in asyncio. `semaphores.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import statistics
import sys
import time
from collections import deque

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def concurrency_limit(tasks, calls):
    limit = asyncio.Semaphore(4)

    async def task():
        for _ in range(calls):
            async with limit:
                await asyncio.sleep(0)

    await asyncio.gather(*(task() for _ in range(tasks)))


async def weighted_limit(tasks, calls):
    free, changed = 16, asyncio.Condition()

    async def task(weight):
        nonlocal free
        for _ in range(calls):
            async with changed:
                await changed.wait_for(lambda: free >= weight)
                free -= weight
            await asyncio.sleep(0)
            async with changed:
                free += weight
                changed.notify_all()

    await asyncio.gather(*(task(1 + number % 8) for number in range(tasks)))


async def keyed_limit(calls, keys, overall):
    limit, of_key = asyncio.Semaphore(overall), {}

    async def call(key):
        permits, users = of_key.get(key) or (asyncio.Semaphore(1), 0)
        of_key[key] = permits, users + 1
        try:
            async with permits, limit:
                await asyncio.sleep(0)
        finally:
            permits, users = of_key.pop(key)
            if users > 1:
                of_key[key] = permits, users - 1

    await asyncio.gather(*(call(number % keys) for number in range(calls)))


class RateLimit:
    def __init__(self, rate, burst):
        self.rate, self.burst = rate, burst
        self.level, self.at = float(burst), time.monotonic()
        self.turn = asyncio.Lock()

    async def acquire(self, tokens):
        async with self.turn:
            while True:
                now = time.monotonic()
                self.level = min(self.burst, self.level + (now - self.at) * self.rate)
                self.at = now
                if self.level >= tokens:
                    self.level -= tokens
                    return
                await asyncio.sleep((tokens - self.level) / self.rate)


class WindowLimit:
    def __init__(self, calls, window):
        self.calls, self.window = calls, window
        self.log = deque()
        self.turn = asyncio.Lock()

    async def acquire(self):
        async with self.turn:
            while True:
                now = time.monotonic()
                while self.log and now - self.log[0] >= self.window:
                    self.log.popleft()
                if len(self.log) < self.calls:
                    self.log.append(now)
                    return
                await asyncio.sleep(self.window - (now - self.log[0]))


async def rate_limit(n, rate, burst):
    """Returns the processor time."""
    limit, start = RateLimit(rate, burst), time.process_time()
    await asyncio.gather(*(limit.acquire(1) for _ in range(n)))
    return time.process_time() - start


async def rate_limit_there(n):
    limit = RateLimit(1000, 1_000_000_000)
    for _ in range(n):
        await limit.acquire(1)


async def window_limit_there(n):
    limit = WindowLimit(2 * n, 1)
    for _ in range(n):
        await limit.acquire()


async def measure(job, numbers):
    runs, begin = [], time.perf_counter()
    while time.perf_counter() - begin < ENOUGH:
        start = time.perf_counter()
        own_time = await job(*numbers)
        runs.append(own_time or time.perf_counter() - start)
    return statistics.median(runs)


def main():
    event_loop, job, *numbers = sys.argv[1:]
    if event_loop == "uvloop":
        import uvloop as runner
    else:
        runner = asyncio
    print(runner.run(measure(globals()[job], [int(number) for number in numbers])))


main()
