"""The jobs of benches/producer-consumer.rs in asyncio. `producer-consumer.py asyncio|uvloop JOB NUMBER...` prints seconds."""

import asyncio
import collections
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


class Loader:
    """At most four batches of 64 keys at a time; what is asked for meanwhile goes into the next one."""

    def __init__(self, work):
        self.work, self.waiting, self.running = work, {}, 0

    async def load(self, key):
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self.waiting.setdefault(key, []).append(future)
        if self.running < 4:
            self.running += 1
            loop.create_task(self.run())
        return await future

    async def run(self):
        while self.waiting:
            keys = [key for key, _ in zip(self.waiting, range(64))]
            callers = {key: self.waiting.pop(key) for key in keys}
            found = await self.work(keys)
            for key, futures in callers.items():
                for future in futures:
                    if not future.done():
                        future.set_result(found.get(key))
        self.running -= 1


async def batch_loader(n, callers):
    async def work(keys):
        await asyncio.sleep(0)
        return {key: key for key in keys}

    loader = Loader(work)

    async def caller(first):
        for key in range(first, n, callers):
            assert await loader.load(key) == key

    await asyncio.gather(*(caller(first) for first in range(callers)))


async def priority_queue(n):
    items = asyncio.PriorityQueue(maxsize=1024)

    async def send():
        for item in range(n):
            await items.put((item % 4, item))

    sending = asyncio.ensure_future(send())
    for _ in range(n):
        await items.get()
    await sending


async def lossy_queue(n, capacity):
    items, filled = collections.deque(maxlen=capacity), asyncio.Event()

    async def receive():
        while True:
            if not items:
                filled.clear()
                await filled.wait()
            if items.popleft() is None:
                return

    receiving = asyncio.ensure_future(receive())
    for item in range(n):
        items.append(item)
        filled.set()
        if item % (2 * capacity) == 2 * capacity - 1:
            await asyncio.sleep(0)
    items.append(None)
    filled.set()
    await receiving


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
