"""The jobs of benches/context-managers.rs in asyncio. `context-managers.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import statistics
import sys
import time
from contextlib import AsyncExitStack

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def step(waits):
    if waits:
        await asyncio.sleep(0)


async def shield(n):
    for _ in range(n):
        await asyncio.shield(step(True))


class Resource:
    def __init__(self, waits):
        self.waits = waits

    async def __aenter__(self):
        await step(self.waits)

    async def __aexit__(self, *error):
        await step(self.waits)


async def bracket(n, waits):
    for _ in range(n):
        async with Resource(waits):
            await step(waits)


async def exit_stack(n):
    async with AsyncExitStack() as stack:
        for _ in range(n):
            stack.push_async_callback(step, True)


def full_pool(size):
    pool = asyncio.Queue()
    for _ in range(size):
        pool.put_nowait([0] * 8)
    return pool


async def pool_alone(n):
    pool = full_pool(4)
    for _ in range(n):
        resource = await pool.get()
        try:
            resource[0] += 1
        finally:
            pool.put_nowait(resource)


async def pool_shared(tasks, calls):
    pool = full_pool(4)

    async def task():
        for _ in range(calls):
            resource = await pool.get()
            try:
                resource[0] += 1
                await asyncio.sleep(0)
            finally:
                pool.put_nowait(resource)

    await asyncio.gather(*(task() for _ in range(tasks)))


class Guard:
    """`__del__` cannot await: it makes a task, which somebody has to hold and to wait for."""

    def __init__(self, cleanups):
        self.cleanups = cleanups

    def __del__(self):
        task = asyncio.get_running_loop().create_task(asyncio.sleep(0))
        self.cleanups.add(task)
        task.add_done_callback(self.cleanups.discard)


async def reaper(n):
    cleanups = set()
    guards = [Guard(cleanups) for _ in range(n)]
    del guards
    await asyncio.gather(*cleanups)


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
