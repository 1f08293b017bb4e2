"""pipeline: read, count, add up, with bounded queues between the stages."""

import asyncio
from collections import Counter

END = None


async def stage(source: asyncio.Queue, width: int, work, target: asyncio.Queue) -> None:
    async def worker() -> None:
        while (item := await source.get()) is not END:
            await target.put(await work(item))
        await source.put(END)  # for the next worker of this stage; the last one leaves it there

    async with asyncio.TaskGroup() as group:
        for _ in range(width):
            group.create_task(worker())
    await target.put(END)


async def read(number: int) -> str:
    await asyncio.sleep([0.03, 0.01, 0.02][number % 3])
    return "the text of file " + str(number)


async def count(text: str) -> Counter:
    return Counter(text.split())


async def add(counts: asyncio.Queue) -> Counter:
    total: Counter = Counter()
    while (part := await counts.get()) is not END:
        total += part
    return total


async def main() -> None:
    # One place more than the bound: the sentinel comes back into the queue that it was taken from.
    numbers, texts, counts = (asyncio.Queue(maxsize=3) for _ in range(3))

    async def feed() -> None:
        for number in range(6):
            await numbers.put(number)
        await numbers.put(END)

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        group.create_task(stage(numbers, 3, read, texts))
        group.create_task(stage(texts, 2, count, counts))
        total = group.create_task(add(counts))
    print(sum(total.result().values()), "words,", total.result()["the"], "times `the`")


asyncio.run(main())
