"""try_gather: run tasks together; the first failure stops the rest."""

import asyncio


async def load(name: str, seconds: float) -> str:
    try:
        await asyncio.sleep(seconds)
        if name == "orders":
            raise ConnectionError("orders: connection refused")
        return name
    except asyncio.CancelledError:
        print(f"{name} is cancelled")
        raise


async def main() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(load("user", 0.01))
            group.create_task(load("orders", 0.02))
            group.create_task(load("profile", 0.05))
    except* ConnectionError as failures:
        # A group: two tasks may have failed in the same turn of the loop. Which of the inputs it was is not said.
        print("failed:", [str(failure) for failure in failures.exceptions])


asyncio.run(main())
