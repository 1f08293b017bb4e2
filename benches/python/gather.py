"""The jobs of benches/gather.rs in asyncio. `gather.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import statistics
import sys
import time

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def ready(i):
    return i


async def pending(i):
    await asyncio.sleep(0)
    return i


async def timer(i):
    await asyncio.sleep(0.001)


async def gather_ready(n):
    await asyncio.gather(*(ready(i) for i in range(n)))


async def gather_pending(n):
    await asyncio.gather(*(pending(i) for i in range(n)))


async def gather_timers(n):
    await asyncio.gather(*(timer(i) for i in range(n)))


def limited(work, limit):
    permits = asyncio.Semaphore(limit)

    async def one(i):
        async with permits:
            return await work(i)

    return one


async def map_ordered(work, n, limit):
    one = limited(work, limit)
    await asyncio.gather(*(one(i) for i in range(n)))


async def map_concurrent(work, n, limit):
    one = limited(work, limit)
    for result in asyncio.as_completed([one(i) for i in range(n)]):
        await result


async def map_ordered_ready(n, limit):
    await map_ordered(ready, n, limit)


async def map_ordered_pending(n, limit):
    await map_ordered(pending, n, limit)


async def map_concurrent_ready(n, limit):
    await map_concurrent(ready, n, limit)


async def map_concurrent_pending(n, limit):
    await map_concurrent(pending, n, limit)


async def task_group(n):
    async with asyncio.TaskGroup() as group:
        for i in range(n):
            group.create_task(pending(i))


async def settle(n):
    await asyncio.gather(*(pending(i) for i in range(n)), return_exceptions=True)


async def race(n):
    tasks = [asyncio.ensure_future(asyncio.Event().wait()) for _ in range(n - 1)]
    tasks.append(asyncio.ensure_future(pending(n)))
    _, losers = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for loser in losers:
        loser.cancel()
    await asyncio.gather(*losers, return_exceptions=True)


async def cancel(n):
    """Returns what it took from the cancellation to the end of the last task."""

    async def parent():
        async with asyncio.TaskGroup() as group:
            for _ in range(n):
                group.create_task(asyncio.Event().wait())

    task = asyncio.ensure_future(parent())
    for _ in range(3):
        await asyncio.sleep(0)
    start = time.perf_counter()
    task.cancel()
    await asyncio.wait([task])
    return time.perf_counter() - start


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
