"""deadline: nested timeouts, and whatever of many calls has ended in time."""

import asyncio


async def call(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


async def main() -> None:
    try:
        async with asyncio.timeout(0.05) as request:
            async with asyncio.timeout(0.5) as orders:
                await call(1)
    except TimeoutError:
        print("request expired:", request.expired(), "orders expired:", orders.expired())

    tasks = [asyncio.create_task(call(seconds)) for seconds in (0.01, 1, 0.02, 2)]
    done, waiting = await asyncio.wait(tasks, timeout=0.2)
    for task in waiting:  # wait() cancels nothing
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    print([task.result() if task in done else "cut off" for task in tasks])


asyncio.run(main())
