"""The jobs of benches/producer-consumer.rs in asyncio. `producer-consumer.py asyncio|uvloop JOB NUMBER...` prints the seconds
of one run."""

import asyncio
import statistics
import sys
import time

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def batcher(n, size):
    queue = asyncio.Queue(256)

    async def send():
        for i in range(n):
            await queue.put(i)
        await queue.put(None)

    sending = asyncio.ensure_future(send())
    loop = asyncio.get_running_loop()
    taken, ended = 0, False
    while not ended:
        first = await queue.get()
        if first is None:
            break
        batch, deadline = [first], loop.time() + 0.01
        while len(batch) < size:
            try:
                item = await asyncio.wait_for(queue.get(), deadline - loop.time())
            except asyncio.TimeoutError:
                break
            if item is None:
                ended = True
                break
            batch.append(item)
        taken += len(batch)
    await sending
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
