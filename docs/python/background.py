"""background: a named task, a wait that is given up, a failure with a name, and an end."""

import asyncio


async def work(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


async def broken() -> None:
    raise OSError("disk full")


async def main() -> None:
    # Keep the reference: the event loop has only a weak one.
    report = asyncio.create_task(work(0.03), name="report")
    try:
        # Without shield, the timeout would cancel the task.
        await asyncio.wait_for(asyncio.shield(report), 0.01)
    except TimeoutError:
        print(report.get_name(), "is not ready")
    print(report.get_name(), await report)

    failing = asyncio.create_task(broken(), name="import")
    try:
        await failing
    except OSError as error:
        print(failing.get_name(), "failed:", error)

    poll = asyncio.create_task(work(60), name="poll")
    await asyncio.sleep(0.01)
    poll.cancel()
    try:
        await poll
    except asyncio.CancelledError:
        print(poll.get_name(), "was cancelled")


asyncio.run(main())
