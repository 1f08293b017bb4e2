"""gather: await many coroutines together and get all their results in input order."""

import asyncio


async def length(word: str) -> int:
    await asyncio.sleep(0.01 * len(word))
    return len(word)


async def fail_soon() -> int:
    await asyncio.sleep(0.01)
    raise ValueError("no such word")


async def main() -> None:
    print(await asyncio.gather(length("three"), length("one")))

    # The first exception leaves gather, but the other tasks go on: nobody cancels or awaits them.
    slow = asyncio.ensure_future(length("a longer word"))
    try:
        await asyncio.gather(slow, fail_soon())
    except ValueError as error:
        print(f"gather raised {error!r}; the other task is done: {slow.done()}")
    print(f"it went on and returned {await slow}")


asyncio.run(main())
