"""generator: `async def … yield`, and when its cleanup runs if the loop is left early."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


async def read(batches: list[list[str]]) -> list[str]:
    await asyncio.sleep(0.015)
    return batches.pop(0) if batches else []


async def lines() -> AsyncIterator[str]:
    batches = [["one two", "buckle my shoe"], ["three four", "knock at the door"]]
    try:
        while batch := await read(batches):
            for line in batch:
                yield line
    finally:
        await asyncio.sleep(0)  # a cleanup may await
        print("cleaned up")


async def main() -> None:
    async for line in lines():
        print(line)
        break
    print("after the loop")  # the generator is closed by the event loop, some time later
    await asyncio.sleep(0.01)

    # Closed where the block ends.
    async with contextlib.aclosing(lines()) as stream:
        async for line in stream:
            print(line)
            break
    print("after the block")


asyncio.run(main())
