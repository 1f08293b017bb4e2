"""map_ordered: at most three jobs at a time, results in input order."""

import asyncio


async def fetch(page: int) -> int:
    await asyncio.sleep(0.05 if page == 0 else 0.01)
    return page


async def map_ordered(work, items, limit: int) -> list:
    """asyncio has no such function. Workers that share one iterator start a job only when one has ended."""
    numbered, results = enumerate(items), {}

    async def worker() -> None:
        for index, item in numbered:
            results[index] = await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(worker())
    return [results[index] for index in range(len(results))]


print(asyncio.run(map_ordered(fetch, range(9), limit=3)))
