"""hedge: a second copy when the first is slow, and the first success wins."""

import asyncio


async def hedge(copy, delay):
    running = {asyncio.create_task(copy(1))}
    failures = []
    try:
        done, _ = await asyncio.wait(running, timeout=delay)
        if not done:
            running.add(asyncio.create_task(copy(2)))
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.exception():
                    return task.result()
                failures.append(task.exception())
        raise ExceptionGroup("no copy succeeded", failures)
    finally:
        # Tasks go on by themselves: the loser has to be cancelled, and its end awaited.
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def copy(number):
    await asyncio.sleep(0.3 if number == 1 else 0.01)
    return f"answer of copy {number}"


print(asyncio.run(hedge(copy, 0.02)))
