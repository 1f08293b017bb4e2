"""cancellation: ask with a reason, leave time for the cleanup, and then insist."""

import asyncio


async def polite() -> str:
    try:
        await asyncio.sleep(60)
        return "finished"
    except asyncio.CancelledError as reason:
        await asyncio.sleep(0.01)  # the cleanup
        return f"cleaned up: {reason}"


async def stubborn() -> str:
    while True:
        try:
            await asyncio.sleep(0.05)
            return "did not stop"
        except asyncio.CancelledError:
            pass  # goes on, and nothing can stop it


async def main() -> None:
    tasks = [asyncio.create_task(polite()), asyncio.create_task(stubborn())]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel("deploy of version 7")
    _, late = await asyncio.wait(tasks, timeout=0.02)
    for task in late:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        print(result)


asyncio.run(main())
