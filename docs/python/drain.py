"""drain: tell every client when to come back, wait for those that leave, and cut off the others."""

import asyncio
import random


async def serve(name, leaving):
    try:
        await leaving.wait()
        retry = random.randint(0, 30_000)
        assert 0 <= retry <= 30_000  # each client is told another moment
        await asyncio.sleep({"alice": 0.01, "bob": 0.02}.get(name, 3600))
        print(f"{name}: left")
    except asyncio.CancelledError:
        if name != "stubborn":
            raise
        # Swallowed, as by a bare `except:` around a farewell. Nobody is told.
        await asyncio.sleep(0.1)
        print(f"{name}: still here after it was cut off")


async def main():
    leaving = asyncio.Event()
    tasks = {asyncio.create_task(serve(name, leaving)) for name in ["alice", "bob", "deaf", "stubborn"]}
    await asyncio.sleep(0)
    leaving.set()
    left, late = await asyncio.wait(tasks, timeout=0.05)
    for task in late:
        task.cancel()
    print(f"{len(left)} left, {len(late)} cut off")
    # Without this line main returns while they still run.
    await asyncio.wait(late)


asyncio.run(main())
