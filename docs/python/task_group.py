"""task_group: children that start children, and none outlives the group."""

import asyncio


async def visit(group: asyncio.TaskGroup, page: str, depth: int) -> None:
    await asyncio.sleep(0.01)
    print("  " * depth + page)
    if depth < 2:
        for link in "ab":
            # The group has no limit: whoever wants one needs a semaphore, taken inside the child.
            group.create_task(visit(group, page + link, depth + 1))


async def main() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(visit(group, "/", 0))
    print("all pages are visited")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            raise RuntimeError("stop")
    except* RuntimeError:
        print("the sleeper is cancelled and awaited; a child that ignores the cancellation is waited for without limit")


asyncio.run(main())
