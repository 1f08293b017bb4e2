"""poll_until: ask until it is done, or the time is up."""

import asyncio
import random


async def poll_until(limit, poll, condition):
    last = None  # outside, or the exception takes it away
    try:
        async with asyncio.timeout(limit):
            while True:
                last = await poll()
                if condition(last):
                    return last
                await asyncio.sleep(random.uniform(0.005, 0.01))
    except TimeoutError:
        raise TimeoutError(f"the last state was {last}") from None


async def main() -> None:
    states = iter([25, 50, 75, 100])

    async def progress() -> int:
        return next(states)

    async def stuck() -> int:
        return 40

    print("job:", await poll_until(1, progress, lambda percent: percent == 100))
    try:
        await poll_until(0.05, stuck, lambda percent: percent == 100)
    except TimeoutError as error:
        print("stuck job:", error)


asyncio.run(main())
