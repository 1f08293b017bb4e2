"""timeout: cut off, hand over to an owner, and move the limit."""

import asyncio


async def work(seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
        return "done"
    except asyncio.CancelledError:
        print("cancelled inside the operation")  # here it could still await
        raise


async def main() -> None:
    try:
        await asyncio.wait_for(work(0.2), timeout=0.02)
    except TimeoutError as error:
        print("TimeoutError:", str(error) or "no name, no limit")

    owner = asyncio.create_task(work(0.06))
    try:
        await asyncio.wait_for(asyncio.shield(owner), timeout=0.02)
    except TimeoutError:
        print("the task goes on:", await owner)

    loop = asyncio.get_running_loop()
    async with asyncio.timeout(0.02) as limit:
        for _ in range(3):
            limit.reschedule(loop.time() + 0.1)
            await asyncio.sleep(0.015)
    print("rescheduled, expired:", limit.expired())


asyncio.run(main())
