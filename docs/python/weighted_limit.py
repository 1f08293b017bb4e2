"""weighted_limit: a budget of 10 units, by a condition variable; a large request starves."""

import asyncio


class Budget:
    def __init__(self, size: int) -> None:
        self.free = size
        self.changed = asyncio.Condition()

    async def take(self, weight: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: self.free >= weight)
            self.free -= weight

    async def give_back(self, weight: int) -> None:
        async with self.changed:
            self.free += weight
            self.changed.notify_all()  # whoever fits goes first


async def main() -> None:
    budget, served = Budget(10), []

    async def work(weight: int, seconds: float) -> None:
        await budget.take(weight)
        served.append(weight)
        await asyncio.sleep(seconds)
        await budget.give_back(weight)

    async def small_ones() -> None:
        await asyncio.gather(*(work(4, 0.02 + 0.01 * i) for i in range(6)))

    async with asyncio.TaskGroup() as group:
        group.create_task(small_ones())
        await asyncio.sleep(0.01)
        group.create_task(work(10, 0.01))
        await asyncio.sleep(0)
        group.create_task(work(1, 0.01))
    print("served", served)
    print("the request for 10 came before the last one, and was served last")


asyncio.run(main())
