"""pace: debounce by hand. A search runs when no key has come for 100 ms."""

import asyncio


async def debounce(keys: asyncio.Queue, quiet: float):
    ended = False
    while not ended:
        latest = await keys.get()
        if latest is None:
            return
        while True:
            try:
                # A task and a timer for each key.
                key = await asyncio.wait_for(keys.get(), quiet)
            except TimeoutError:
                break
            if key is None:
                ended = True
                break
            latest = key
        yield latest


async def type_text(text: str, keys: asyncio.Queue) -> None:
    for end in range(1, len(text) + 1):
        await asyncio.sleep(0.2 if text[end - 1] == " " else 0.03)
        await keys.put(text[:end])
    await keys.put(None)


async def main() -> None:
    keys = asyncio.Queue()
    typing = asyncio.create_task(type_text("tokio rust", keys))
    async for text in debounce(keys, 0.1):
        print(f"search {text!r}")
    await typing


asyncio.run(main())
