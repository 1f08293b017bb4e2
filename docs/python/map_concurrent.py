"""map_concurrent: results as they come, at most three jobs at a time."""

import asyncio


async def fetch(page: int, limit: asyncio.Semaphore) -> int:
    async with limit:
        await asyncio.sleep([0.08, 0.05, 0.03, 0.04, 0.06, 0.02][page])
        return page


async def main() -> None:
    limit = asyncio.Semaphore(3)
    # Every job is a task from the start: 6 of them wait inside the semaphore. With a million pages there are a million.
    jobs = [fetch(page, limit) for page in range(6)]
    for job in asyncio.as_completed(jobs):
        page = await job
        await asyncio.sleep(0.001)  # the tasks go on meanwhile: they do not need this loop to run
        print("page", page)


asyncio.run(main())
