"""shutdown: phases in order at SIGTERM, a limit for each, and who did not stop."""

import asyncio
import os
import signal


async def until_told(stop: asyncio.Event, cleanup: float) -> None:
    await stop.wait()
    await asyncio.sleep(cleanup)


async def main() -> None:
    begin = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, begin.set)  # a second signal has no effect
    phases = []
    for name, cleanups in [("listener", [0.01]), ("workers", [0.01, 60]), ("journal", [0.01])]:
        stop = asyncio.Event()
        tasks = [asyncio.create_task(until_told(stop, it), name=f"{name} {i}") for i, it in enumerate(cleanups)]
        phases.append((name, stop, tasks))

    os.kill(os.getpid(), signal.SIGTERM)
    await begin.wait()
    for name, stop, tasks in phases:
        stop.set()
        _, late = await asyncio.wait(tasks, timeout=0.05)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        print(name, "stopped; aborted:", [task.get_name() for task in late])


asyncio.run(main())
