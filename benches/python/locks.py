"""The jobs of benches/locks.rs in asyncio. `locks.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import statistics
import sys
import time
from contextlib import asynccontextmanager

ENOUGH = 0.3  # seconds of measuring, and at least one run


async def shared_state(tasks, changes):
    lock, count = asyncio.Lock(), 0

    async def task():
        nonlocal count
        for _ in range(changes):
            async with lock:
                count += 1

    await asyncio.gather(*(task() for _ in range(tasks)))


async def event(tasks):
    ready = asyncio.Event()
    waiting = [asyncio.create_task(ready.wait()) for _ in range(tasks)]
    await asyncio.sleep(0)
    ready.set()
    for task in waiting:
        await task


async def event_set(waits):
    ready = asyncio.Event()
    ready.set()
    for _ in range(waits):
        await ready.wait()


async def condition(pairs, steps, room):
    stored, changed = 0, asyncio.Condition()

    async def put():
        nonlocal stored
        for _ in range(steps):
            async with changed:
                await changed.wait_for(lambda: stored < room)
                stored += 1
                changed.notify_all()

    async def take():
        nonlocal stored
        for _ in range(steps):
            async with changed:
                await changed.wait_for(lambda: stored > 0)
                stored -= 1
                changed.notify_all()

    await asyncio.gather(*(step() for _ in range(pairs) for step in (put, take)))


async def condition_change(tasks):
    is_open, changed = False, asyncio.Condition()

    async def wait():
        async with changed:
            await changed.wait_for(lambda: is_open)

    waiting = [asyncio.create_task(wait()) for _ in range(tasks)]
    await asyncio.sleep(0)
    async with changed:
        is_open = True
        changed.notify_all()
    for task in waiting:
        await task


async def condition_items(tasks):
    items, changed = 0, asyncio.Condition()

    async def take():
        nonlocal items
        async with changed:
            await changed.wait_for(lambda: items > 0)
            items -= 1

    waiting = [asyncio.create_task(take()) for _ in range(tasks)]
    for _ in range(tasks):
        await asyncio.sleep(0)
        async with changed:
            items += 1
            changed.notify_all()
    for task in waiting:
        await task


async def barrier(tasks, rounds):
    meeting = asyncio.Barrier(tasks)

    async def task():
        for _ in range(rounds):
            await meeting.wait()

    await asyncio.gather(*(task() for _ in range(tasks)))


class KeyedLock:
    def __init__(self):
        self.keys = {}

    @asynccontextmanager
    async def hold(self, key):
        lock, users = self.keys.get(key) or (asyncio.Lock(), 0)
        self.keys[key] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self.keys.pop(key)
            if users > 1:
                self.keys[key] = lock, users - 1


async def keyed_mutex(tasks, calls, keys):
    locks = KeyedLock()

    async def task(number):
        for _ in range(calls):
            async with locks.hold(number % keys):
                if keys == 1:
                    await asyncio.sleep(0)

    await asyncio.gather(*(task(number) for number in range(tasks)))


class SingleFlight:
    def __init__(self):
        self.flights = {}

    async def run(self, key, work):
        flight = self.flights.get(key)
        if flight is None:
            task = asyncio.create_task(work())
            task.add_done_callback(lambda _: self.flights.pop(key))
            flight = self.flights[key] = [task, 0]
        flight[1] += 1
        try:
            return await asyncio.shield(flight[0])
        finally:
            flight[1] -= 1
            if flight[1] == 0:
                flight[0].cancel()


async def single_flight(callers):
    flights = SingleFlight()

    async def work():
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return 7

    await asyncio.gather(*(flights.run(0, work) for _ in range(callers)))


async def actor(callers, calls, pending):
    queue, sum = asyncio.Queue(64), 0

    async def work():
        nonlocal sum
        while True:
            amount, reply = await queue.get()
            if pending:
                await asyncio.sleep(0)
            sum += amount
            reply.set_result(sum)

    async def caller():
        for _ in range(calls):
            reply = asyncio.get_running_loop().create_future()
            await queue.put((1, reply))
            await reply

    task = asyncio.create_task(work())
    await asyncio.gather(*(caller() for _ in range(callers)))
    task.cancel()


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
