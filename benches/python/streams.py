"""The jobs of benches/streams.rs in asyncio. `streams.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import heapq
import statistics
import sys
import time
from collections import deque

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


async def fan_out(n, rounds, burst):
    """Returns the time without making the tasks, as the bench does."""
    queues, seen = [asyncio.Queue(32) for _ in range(n)], 0

    async def read(queue):
        nonlocal seen
        while await queue.get() is not None:
            seen += 1

    reading = [asyncio.create_task(read(queue)) for queue in queues]
    await asyncio.sleep(0)
    start = time.perf_counter()
    for number in range(1, rounds + 1):
        for item in range(burst):
            for queue in queues:
                queue.put_nowait(item)
        while seen < number * burst * n:
            await asyncio.sleep(0)
    took = time.perf_counter() - start
    for queue in queues:
        queue.put_nowait(None)
    await asyncio.gather(*reading)
    return took


async def lossy_channel(n):
    queue, changed, ended = deque(maxlen=32), asyncio.Event(), False

    async def read():
        seen = 0
        while True:
            while queue:
                queue.popleft()
                seen += 1
            if ended:
                return seen
            changed.clear()
            await changed.wait()

    reading = asyncio.create_task(read())
    for item in range(n):
        queue.append(item)
        changed.set()
        if item % 16 == 15:
            await asyncio.sleep(0)
    ended = True
    changed.set()
    await reading


async def chunks(n, items):
    loop, source = asyncio.get_running_loop(), numbers(n)
    coming = asyncio.ensure_future(anext(source, None))
    while (first := await coming) is not None:
        chunk, due = [first], loop.time() + 0.01
        coming = asyncio.ensure_future(anext(source, None))
        while len(chunk) < items:
            await asyncio.wait([coming], timeout=due - loop.time())
            if not coming.done() or coming.result() is None:
                break
            chunk.append(coming.result())
            coming = asyncio.ensure_future(anext(source, None))


async def trickle(n, take):
    queue = asyncio.Queue(1)
    taking = asyncio.create_task(take(queue))
    for item in range(n):
        await queue.put(item)
    await queue.put(None)
    await taking


async def debounce(n):
    async def take(queue):
        while await queue.get() is not None:
            while True:
                try:
                    if await asyncio.wait_for(queue.get(), 0.01) is None:
                        return
                except TimeoutError:
                    break

    await trickle(n, take)


async def stall_guard(n):
    async def take(queue):
        while True:
            async with asyncio.timeout(10):
                if await queue.get() is None:
                    return

    await trickle(n, take)


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
