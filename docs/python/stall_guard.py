"""stall_guard: a limit for the wait for each item, and one for the whole."""

import asyncio


async def stall_guard(source, idle: float, total: float):
    items = 0
    try:
        async with asyncio.timeout(total):
            while True:
                # Cancels the generator in the middle: it has ended, even for those who would wait on.
                async with asyncio.timeout(idle):
                    try:
                        item = await anext(source)
                    except StopAsyncIteration:
                        return
                items += 1
                yield item  # the total runs on while the consumer works, and may strike there
    except TimeoutError:
        raise TimeoutError(f"a limit ran out after {items} items") from None


async def body(pauses):
    for number, pause in enumerate(pauses):
        await asyncio.sleep(pause)
        yield number


async def main() -> None:
    for name, pauses in [("slow", [0.02] * 10), ("stalled", [0.02, 0.02, 5]), ("dripping", [0.04] * 100)]:
        try:
            async for _ in stall_guard(body(pauses), 0.1, 0.42):
                pass
            print(name, "is complete")
        except TimeoutError as error:
            print(f"{name}: {error}" if name == "stalled" else f"{name}: a limit ran out")


asyncio.run(main())
