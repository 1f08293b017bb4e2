"""sync_facade: async code called from sync code."""

import asyncio
import threading


async def greet(name: str) -> str:
    await asyncio.sleep(0.001)
    return f"hello {name}"


# One call, one event loop: what is left of a task when the call ends is cancelled.
print(asyncio.run(greet("one")))


async def outer() -> None:
    coroutine = greet("nested")
    try:
        asyncio.run(coroutine)
    except RuntimeError as error:
        coroutine.close()
        print("nested:", error)


asyncio.run(outer())

# A loop that lives between the calls needs a thread of its own.
loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever)
thread.start()
print(asyncio.run_coroutine_threadsafe(greet("two"), loop).result())
loop.call_soon_threadsafe(loop.stop)
thread.join()
loop.close()
