"""context: a context variable follows into tasks and threads by itself."""

import asyncio
import contextvars

request = contextvars.ContextVar("request", default=None)


async def call(name: str) -> str:
    await asyncio.sleep(0.01)
    return f"{name} {request.get()}"


async def handle(number: int) -> list:
    request.set(number)
    tasks = [asyncio.create_task(call(name)) for name in ("stock", "price")]  # a copy of the context each
    request.set("later")  # does not reach the tasks
    loop = asyncio.get_running_loop()
    return [
        *[await task for task in tasks],
        f"thread {await asyncio.to_thread(request.get)}",
        f"executor {await loop.run_in_executor(None, request.get)}",
    ]


async def main() -> None:
    for answers in await asyncio.gather(*(handle(number) for number in (1, 2, 3))):
        print(", ".join(answers))
    print("outside", request.get())


asyncio.run(main())
