"""work_queue: a bounded queue, three consumers, and join, which waits for the work and not for the queue."""

import asyncio


async def fetch(user: int, tries: dict[int, int]) -> None:
    await asyncio.sleep([0.0, 0.02, 0.08, 0.04, 0.08, 0.02, 0.06, 0.07, 0.08, 0.08][user])
    tries[user] = tries.get(user, 0) + 1
    if user == 4 and tries[user] == 1:
        raise ConnectionError("503")


async def consume(queue: asyncio.Queue[int], tries: dict[int, int]) -> None:
    while True:
        user = await queue.get()
        try:
            await fetch(user, tries)
            print("user", user)
        except ConnectionError as error:
            print("user", user, error, "back to the queue")
            # Not `await queue.put`: three consumers that wait for room would wait for each other.
            asyncio.get_running_loop().create_task(queue.put(user))
        finally:
            # Without this line `join` never returns. It counts the item as done even if the consumer is cancelled.
            queue.task_done()


async def main() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    tries: dict[int, int] = {}
    consumers = [asyncio.create_task(consume(queue, tries)) for _ in range(3)]
    for user in range(1, 10):
        await queue.put(user)
    await queue.join()
    # The consumers do not know of the end: they are cancelled while they wait.
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    print("all done")


asyncio.run(main())
