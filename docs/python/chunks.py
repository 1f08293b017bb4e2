"""chunks: at most four items a chunk, none waits longer than 50 ms for others."""

import asyncio


async def chunks(source, items: int, delay: float):
    loop = asyncio.get_running_loop()
    coming = anext(source, None)  # a coroutine; it becomes a task when it has to outlive a timeout
    while (first := await coming) is not None:
        chunk, due = [first], loop.time() + delay
        coming = asyncio.ensure_future(anext(source, None))
        while len(chunk) < items:
            # Not wait_for: it would cancel `anext`, and with it the generator and all its further items.
            await asyncio.wait([coming], timeout=due - loop.time())
            if not coming.done() or coming.result() is None:
                break
            chunk.append(coming.result())
            coming = asyncio.ensure_future(anext(source, None))
        yield chunk


async def numbers():
    for number in range(1, 10):
        if number > 5:
            await asyncio.sleep(0.035)
        yield number


async def main() -> None:
    async for chunk in chunks(numbers(), 4, 0.05):
        print("chunk", chunk)


asyncio.run(main())
