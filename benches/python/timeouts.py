"""The jobs of benches/timeouts.rs in asyncio. `timeouts.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import random
import statistics
import sys
import time

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def ready(i):
    return i


async def pending(i):
    await asyncio.sleep(0)
    return i


async def timeout_ready(n):
    for i in range(n):
        await asyncio.wait_for(ready(i), 60)


async def timeout_pending(n):
    for i in range(n):
        await asyncio.wait_for(pending(i), 60)


async def deadline(n):
    await asyncio.wait([asyncio.create_task(pending(i)) for i in range(n)], timeout=60)


async def circuit_breaker(n):
    failures, until = 0, None
    for i in range(n):
        if until is not None and time.monotonic() < until:
            continue
        try:
            await ready(i)
            failures = 0
        except Exception:
            failures += 1


async def poll_until(n):
    for i in range(n):
        async with asyncio.timeout(60):
            while await ready(i) != i:
                await asyncio.sleep(0.001)


async def one_retry(attempt):
    for number in range(4):
        try:
            async with asyncio.timeout(10):
                return await attempt(number)
        except (OSError, TimeoutError):
            await asyncio.sleep(random.uniform(0, 0.1 * 2**number))


async def retry_ready(n):
    for _ in range(n):
        await one_retry(ready)


async def retry_pending(n):
    for _ in range(n):
        await one_retry(pending)


async def one_hedge(copy):
    tasks = {asyncio.ensure_future(copy(1))}
    done, _ = await asyncio.wait(tasks, timeout=0.05)
    if not done:
        tasks.add(asyncio.ensure_future(copy(2)))
        done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    return done.pop().result()


async def hedge_pending(n):
    for _ in range(n):
        await one_hedge(pending)


async def budget(n):
    balance, most = 0, 1000
    for _ in range(n):
        balance = min(balance + 100, most)
        if balance >= 100:
            balance -= 100


async def measure(job, numbers):
    runs, begin = [], time.perf_counter()
    while time.perf_counter() - begin < ENOUGH:
        start = time.perf_counter()
        await job(*numbers)
        runs.append(time.perf_counter() - start)
    return statistics.median(runs)


def main():
    event_loop, job, *numbers = sys.argv[1:]
    if event_loop == "uvloop":
        import uvloop as runner
    else:
        runner = asyncio
    print(runner.run(measure(globals()[job], [int(number) for number in numbers])))


main()
