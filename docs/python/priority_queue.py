"""priority_queue: with ageing, so that clicks overtake a report only so often."""

import asyncio
import itertools


class AgeingQueue:
    def __init__(self, capacity: int, stride: int) -> None:
        self.items, self.stride, self.count = asyncio.PriorityQueue(capacity), stride, itertools.count()

    async def put(self, priority: int, item) -> None:
        # The number is taken before the wait for room: a cancelled put leaves a gap, and one that waits is not overtaken.
        number = next(self.count)
        # It also keeps two items from being compared with each other.
        await self.items.put((number + priority * self.stride, priority, number, item))

    async def get(self):
        return (await self.items.get())[-1]


async def main() -> None:
    for stride in (2, 1000):
        queue = AgeingQueue(64, stride)
        await queue.put(1, "report")
        for number in range(1, 6):
            await queue.put(0, f"click {number}")
        print("stride", stride, [await queue.get() for _ in range(6)])

    bare = asyncio.PriorityQueue()
    await bare.put((0, {"click": 1}))
    try:
        await bare.put((0, {"click": 2}))
    except TypeError as error:
        print("TypeError:", error)


asyncio.run(main())
