"""batches: fixed batches, each awaited as a whole."""

import asyncio
from itertools import islice


async def store(row: int) -> int:
    await asyncio.sleep(0.03 if row == 2 else 0.01)
    return row * 10


async def main() -> None:
    rows, stored = iter(range(8)), []
    while batch := list(islice(rows, 3)):  # itertools.batched from Python 3.12 on
        stored += await asyncio.gather(*(store(row) for row in batch))
        print(f"{len(stored)} rows stored")
    print(stored)


asyncio.run(main())
