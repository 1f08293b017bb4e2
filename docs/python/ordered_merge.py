"""ordered_merge: `heapq.merge` is not asynchronous, so here is one that is."""

import asyncio
import heapq
from collections.abc import AsyncIterator


async def source(milliseconds: int, numbers: list[int]) -> AsyncIterator[int]:
    for number in numbers:
        await asyncio.sleep(milliseconds / 1000)
        yield number


async def ordered_merge(*sources: AsyncIterator[int]) -> AsyncIterator[tuple[int, int]]:
    firsts = await asyncio.gather(*(anext(items, None) for items in sources))
    heap = [(item, index) for index, item in enumerate(firsts) if item is not None]
    heapq.heapify(heap)
    while heap:
        item, index = heap[0]
        yield item, index
        following = await anext(sources[index], None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following, index))


async def main() -> None:
    sources = source(10, [1, 4, 9]), source(20, [2, 8, 3]), source(5, [5, 6])
    async for item, index in ordered_merge(*sources):
        print(item, "from", index)  # 3 comes after 8, and nobody says so


asyncio.run(main())
