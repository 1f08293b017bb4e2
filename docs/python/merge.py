"""merge: a task for each source puts its items into one queue. The standard library has no merge of its own."""

import asyncio
from collections.abc import AsyncIterator


async def source(name: str, milliseconds: int, count: int) -> AsyncIterator[str]:
    for item in range(count):
        await asyncio.sleep(milliseconds / 1000)
        yield f"{name}{item}"


async def merge(*sources: AsyncIterator[str]) -> AsyncIterator[tuple[int, str]]:
    queue: asyncio.Queue[tuple[int, str | None]] = asyncio.Queue(maxsize=1)

    async def forward(index: int, items: AsyncIterator[str]) -> None:
        try:
            async for item in items:
                await queue.put((index, item))
        finally:
            await queue.put((index, None))

    tasks = [asyncio.create_task(forward(index, items)) for index, items in enumerate(sources)]
    left = len(tasks)
    try:
        while left:
            index, item = await queue.get()
            if item is None:
                left -= 1
                await tasks[index]  # raises what the source raised
            else:
                yield index, item
    finally:
        for task in tasks:
            task.cancel()


async def main() -> None:
    async for index, item in merge(source("a", 100, 3), source("b", 250, 1), source("c", 130, 2)):
        print(index, item)


asyncio.run(main())
