"""retry: full jitter, one deadline over attempts and waits, permanent errors at once."""

import asyncio
import random


class Busy(Exception):
    pass


async def retry(attempt, *, deadline, attempts=4, per_attempt=10, base=0.1, cap=5):
    failures = []
    try:
        async with asyncio.timeout(deadline) as whole:
            for number in range(1, attempts + 1):
                try:
                    async with asyncio.timeout(per_attempt):
                        return await attempt(number)
                except (Busy, TimeoutError) as error:
                    failures.append(error)
                if number < attempts:
                    await asyncio.sleep(random.uniform(0, min(cap, base * 2 ** (number - 1))))
    except TimeoutError as error:
        failures.append(error)
    raise ExceptionGroup("gave up", failures)


async def fetch(number):
    if number < 3:
        raise Busy(f"attempt {number}")
    return f"answer of attempt {number}"


async def hang(number):
    await asyncio.sleep(60)


async def main():
    print(await retry(fetch, deadline=5, base=0.01))
    try:
        await retry(hang, deadline=0.05)
    except ExceptionGroup as group:
        print(group.message, [type(error).__name__ for error in group.exceptions])


asyncio.run(main())
