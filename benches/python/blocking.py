"""The jobs of benches/blocking.rs in asyncio. `blocking.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def offload(n):
    limit = asyncio.Semaphore(4)

    async def call(number):
        async with limit:
            return await asyncio.to_thread(int, number)

    await asyncio.gather(*(call(number) for number in range(n)))


def compute(start, end):
    """About 10 µs for each job."""
    total = 0
    for seed in range(start, end):
        for number in range(200):
            seed = (seed * 6364136223846793005 + number) & 0xFFFFFFFFFFFFFFFF
        total += seed
    return total


async def cpu_pool(n):
    """Returns the time without the start of the processes."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, compute, 0, 1) for _ in range(4)))
        start = time.perf_counter()
        chunks = range(0, n, 32)
        await asyncio.gather(*(loop.run_in_executor(pool, compute, at, min(n, at + 32)) for at in chunks))
        return time.perf_counter() - start


async def ready():
    return 7


async def sync_call(n):
    """On a thread, because there is an event loop on this one already."""

    def calls():
        for _ in range(n):
            asyncio.run(ready())

    await asyncio.to_thread(calls)


async def waits(n):
    await asyncio.gather(*(asyncio.sleep(0.01) for _ in range(n)))


def read(path):
    with open(path, "rb") as file:
        return file.read()


async def read_files(n):
    """Returns the time without the making of the files."""
    limit = asyncio.Semaphore(4)

    async def call(path):
        async with limit:
            return await asyncio.to_thread(read, path)

    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, str(number)) for number in range(n)]
        for path in paths:
            with open(path, "wb") as file:
                file.write(bytes(4096))
        start = time.perf_counter()
        await asyncio.gather(*(call(path) for path in paths))
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
