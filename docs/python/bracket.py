"""bracket: released on success, error and cancellation, unless a second cancellation hits the release."""

import asyncio
from contextlib import asynccontextmanager


@asynccontextmanager
async def session():
    print("  acquired")
    try:
        yield
    finally:
        await asyncio.sleep(0.02)  # the goodbye
        print("  released")


async def use(seconds: float, error: Exception | None = None) -> None:
    async with session():
        await asyncio.sleep(seconds)
        if error:
            raise error


async def cancelled(times: int) -> None:
    task = asyncio.create_task(use(60))
    for _ in range(times):
        await asyncio.sleep(0.01)
        task.cancel()
    await asyncio.wait([task])


async def main() -> None:
    print("success")
    await use(0.01)
    print("error")
    try:
        await use(0.01, ValueError("no paper"))
    except ValueError as error:
        print(" ", error)
    print("cancelled once")
    await cancelled(1)
    print("cancelled again during the release")
    await cancelled(2)


asyncio.run(main())
