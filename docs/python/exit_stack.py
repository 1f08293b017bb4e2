"""exit_stack: cleanups run last first and all of them, but only one of their errors is raised."""

import asyncio
from contextlib import AsyncExitStack


async def remove(name: str, error: Exception | None = None) -> None:
    await asyncio.sleep(0.01)
    print("remove", name)
    if error:
        raise error


async def main() -> None:
    try:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(remove, "folder", OSError("not empty"))
            stack.push_async_callback(remove, "text")
            stack.push_async_callback(remove, "index", PermissionError("denied"))
            raise ValueError("cannot be built")
    except Exception as error:
        print("raised:", repr(error))
        print("its context:", repr(error.__context__))
        print("and that one's:", repr(error.__context__.__context__))

    async with AsyncExitStack() as stack:
        stack.push_async_callback(remove, "package")
        keep = stack.pop_all()
    print("handed over")
    await keep.aclose()


asyncio.run(main())
