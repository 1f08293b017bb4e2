"""The six words of examples/concepts.rs in asyncio."""

import asyncio


async def brew(what: str) -> str:
    await asyncio.sleep(0.02)
    return f"a cup of {what}"


async def cups(n: int):
    for size in range(1, n + 1):
        await asyncio.sleep(0.01)
        yield size


async def main() -> None:
    coroutine = brew("coffee")
    print("coroutine:", await coroutine)

    task = asyncio.create_task(brew("tea"))
    print("task:", await task)

    future = asyncio.get_running_loop().create_future()

    async def produce() -> None:
        future.set_result(await brew("cocoa"))

    producer = asyncio.create_task(produce())
    print("future:", await future)
    await producer

    lock, made = asyncio.Lock(), 0
    async with lock:
        await brew("mocha")
        made += 1
    print("context manager:", made, "cup")

    print("async iterator:", [size async for size in cups(3)])


asyncio.run(main())
