"""concurrency_limit: at most three downloads at a time, to the end of each body."""

import asyncio


async def download(page: int, limit: asyncio.Semaphore, gauge: list[int]) -> int:
    async with limit:
        gauge[0] += 1
        gauge[1] = max(gauge)
        await asyncio.sleep(0.01)  # the head of the response
        await asyncio.sleep(0.02)  # the body: still inside the block, or it would not count
        gauge[0] -= 1
    return page


async def main() -> None:
    limit, gauge = asyncio.Semaphore(3), [0, 0]
    pages = await asyncio.gather(*(download(page, limit, gauge) for page in range(8)))
    print("pages", pages)
    print("at most", gauge[1], "at a time")


asyncio.run(main())
