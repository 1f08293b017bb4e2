"""The jobs of benches/tasks.rs in asyncio. `tasks.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import contextvars
import statistics
import sys
import time

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def ready(i):
    return i


async def tasks(n):
    started = [asyncio.create_task(ready(i), name="task") for i in range(n)]
    for task in started:
        await task


async def cancel(n):
    """Returns what it took from the cancellation to the end of the last task."""
    waiting = [asyncio.create_task(asyncio.Event().wait()) for _ in range(n)]
    for _ in range(3):
        await asyncio.sleep(0)
    start = time.perf_counter()
    for task in waiting:
        task.cancel("stop")
    await asyncio.gather(*waiting, return_exceptions=True)
    return time.perf_counter() - start


request = contextvars.ContextVar("request", default=0)


async def failing(run, runs):
    await asyncio.sleep(0)
    if run < runs:
        raise ConnectionError("no")


async def supervise(n):
    run = 1
    while True:
        try:
            return await failing(run, n)
        except Exception:
            run += 1


async def ticks(n):
    loop = asyncio.get_running_loop()
    due = loop.time()
    for _ in range(n):
        await asyncio.sleep(max(0, due - loop.time()))
        due += 1e-9


async def ask():
    return request.get()


async def context(n):
    request.set(7)
    for _ in range(n):
        assert await asyncio.create_task(ask()) == 7


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
