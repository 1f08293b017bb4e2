"""supervisor: restart a failing task with growing pauses, give up past a limit."""

import asyncio
import collections
import random


async def supervise(start, limit, within, pause, longest_pause):
    loop = asyncio.get_running_loop()
    recent = collections.deque()
    run = 0
    while True:
        run += 1
        try:
            return await start(run)
        except Exception as error:  # not BaseException: CancelledError must pass, or nobody could stop this
            now = loop.time()
            recent.append((now, run, error))
            while now - recent[0][0] > within:
                recent.popleft()
            print(f"run {run} failed: {error!r}")
            if len(recent) > limit:
                raise ExceptionGroup("gave up", [error for _, _, error in recent])
        await asyncio.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, longest_pause)


async def worker(run: int) -> None:
    await asyncio.sleep(0.01)
    if run == 2:
        raise KeyError("name")
    raise ConnectionError("refused")


async def main() -> None:
    try:
        await supervise(worker, limit=3, within=10, pause=0.01, longest_pause=0.1)
    except ExceptionGroup as group:
        print(group.message, [type(error).__name__ for error in group.exceptions])

    supervisor = asyncio.create_task(supervise(worker, limit=3, within=10, pause=60, longest_pause=60))
    await asyncio.sleep(0.05)
    supervisor.cancel()  # ends the pause
    await asyncio.wait([supervisor])
    print("stopped in the pause:", supervisor.cancelled())


asyncio.run(main())
