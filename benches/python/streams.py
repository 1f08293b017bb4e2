"""The jobs of benches/streams.rs in asyncio. `streams.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import heapq
import statistics
import sys
import time

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def read(at, n, batch):
    return list(range(at, min(n, at + batch)))


async def items(n, batch):
    at = 0
    while numbers := await read(at, n, batch):
        at += len(numbers)
        for number in numbers:
            yield number


async def generator(n, batch):
    taken = 0
    async for _ in items(n, batch):
        taken += 1
    assert taken == n


async def numbers(count):
    for number in range(count):
        yield number


async def merge(sources, each):
    queue = asyncio.Queue(1)

    async def forward(source):
        async for item in numbers(each):
            await queue.put((source, item))

    tasks = [asyncio.create_task(forward(source)) for source in range(sources)]
    for _ in range(sources * each):
        await queue.get()
    await asyncio.gather(*tasks)


async def ordered_merge(sources, n):
    taken = 0
    for _ in heapq.merge(*(range(first, n, sources) for first in range(sources))):
        taken += 1
    assert taken == n


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
