"""The jobs of benches/producer-consumer.rs in asyncio. `producer-consumer.py asyncio|uvloop JOB NUMBER...` prints seconds."""

import asyncio
import statistics
import sys
import time

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def queue(n, sides):
    items = asyncio.Queue(maxsize=1024)

    async def consume():
        while True:
            await items.get()
            items.task_done()

    async def produce():
        for item in range(n // sides):
            await items.put(item)

    consumers = [asyncio.ensure_future(consume()) for _ in range(sides)]
    await asyncio.gather(*(produce() for _ in range(sides)))
    await items.join()
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)


async def worker_pool(n, workers):
    jobs = asyncio.Queue()

    async def work():
        while True:
            job = await jobs.get()
            await asyncio.sleep(0)
            for child in (2 * job, 2 * job + 1):
                if child < n:
                    jobs.put_nowait(child)
            jobs.task_done()

    tasks = [asyncio.ensure_future(work()) for _ in range(workers)]
    jobs.put_nowait(1)
    await jobs.join()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def pipeline(n, width):
    numbers, middle, last = (asyncio.Queue(maxsize=16) for _ in range(3))

    async def feed():
        for number in range(n):
            await numbers.put(number)
        for _ in range(width):
            await numbers.put(None)

    async def stage(source, target):
        async def worker():
            while (item := await source.get()) is not None:
                await asyncio.sleep(0)
                await target.put(item)

        await asyncio.gather(*(worker() for _ in range(width)))
        for _ in range(width if target is middle else 1):
            await target.put(None)

    async def count():
        while await last.get() is not None:
            pass

    await asyncio.gather(feed(), stage(numbers, middle), stage(middle, last), count())


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
