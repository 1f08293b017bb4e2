"""paginate: the next pages are fetched by a task while the consumer works, at most two ahead."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


async def fetch(page: int) -> tuple[list[int], int | None]:
    await asyncio.sleep(0.02)
    return [page * 10 + item for item in range(3)], page + 1 if page < 3 else None


async def paginate(first: int, ahead: int) -> AsyncIterator[tuple[int, int, int]]:
    pages: asyncio.Queue[tuple[int, list[int]] | None] = asyncio.Queue(maxsize=ahead)

    async def fetch_pages() -> None:
        page: int | None = first
        try:
            while page is not None:
                items, following = await fetch(page)
                await pages.put((page, items))  # one more than `ahead` is fetched by now
                page = following
        finally:
            # Without this line a fetch that fails leaves the consumer waiting for ever.
            await pages.put(None)

    task = asyncio.create_task(fetch_pages())
    try:
        while (fetched := await pages.get()) is not None:
            page, items = fetched
            for taken, item in enumerate(items):
                yield page, taken + 1, item
        await task  # raises what the fetch raised
    finally:
        task.cancel()


async def main() -> None:
    # Without `aclosing` a `break` leaves the task running until the generator is collected.
    async with contextlib.aclosing(paginate(1, ahead=2)) as items:
        async for page, taken, item in items:
            await asyncio.sleep(0.005)
            print(f"item {item}: go on at page {page}, {taken} taken")


asyncio.run(main())
