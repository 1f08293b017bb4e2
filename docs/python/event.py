"""event: many wait until something is so."""

import asyncio


async def main() -> None:
    ready = asyncio.Event()

    async def wait(number: int) -> str:
        await ready.wait()
        return f"{number} went on"

    waiting = [asyncio.create_task(wait(number)) for number in range(3)]
    late = wait(3)  # a coroutine has not begun: it does not wait yet
    await asyncio.sleep(0)
    ready.set()
    ready.clear()
    print(await asyncio.gather(*waiting))
    try:
        print(await asyncio.wait_for(late, 0.01))
    except TimeoutError:
        print("3 was called before the event was set, and still waits")


asyncio.run(main())
