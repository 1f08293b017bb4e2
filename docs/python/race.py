"""race: the first success wins."""

import asyncio


async def ask(mirror: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    if mirror == "a":
        raise ConnectionError("a: refused")
    return mirror


async def race(coroutines) -> str:
    """asyncio.wait(FIRST_COMPLETED) would stop at the failure of `a`, so it takes a loop."""
    pending, failures = {asyncio.ensure_future(each) for each in coroutines}, []
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is None:
                for loser in pending:
                    loser.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
                return task.result()
            failures.append(task.exception())
    raise ExceptionGroup("every mirror failed", failures)


async def main() -> None:
    print("first success:", await race([ask("a", 0.01), ask("b", 0.03), ask("c", 0.02)]))
    # asyncio.wait refuses an empty set with an exception; an ExceptionGroup without members cannot be made either.
    try:
        await race([])
    except ValueError as error:
        print("empty:", type(error).__name__)


asyncio.run(main())
