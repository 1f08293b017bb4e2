"""sqlite_writer: a queue, one writer, and a commit for what has come together."""

import asyncio
import sqlite3


def commit(database: sqlite3.Connection, names: list[str]) -> None:
    with database:  # commits at its end, or rolls back after an exception
        database.executemany("INSERT INTO users VALUES (?)", [(name,) for name in names])


async def writer(database: sqlite3.Connection, queue: asyncio.Queue) -> None:
    while True:
        group = [await queue.get()]
        while not queue.empty():
            group.append(queue.get_nowait())
        try:
            await asyncio.to_thread(commit, database, [name for name, _ in group])
            for _, stored in group:
                stored.set_result("stored")
        except sqlite3.Error as error:
            for _, stored in group:  # all of them, for the fault of one
                stored.set_result(f"not stored: {error}")


async def write(queue: asyncio.Queue, name: str) -> str:
    stored = asyncio.get_running_loop().create_future()
    await queue.put((name, stored))
    return await stored


async def main() -> None:
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("CREATE TABLE users (name TEXT UNIQUE)")
    queue: asyncio.Queue = asyncio.Queue()
    writing = asyncio.create_task(writer(database, queue))
    for result in await asyncio.gather(*(write(queue, name) for name in ["Ada", "Grace", "Ada"])):
        print(result)
    writing.cancel()


asyncio.run(main())
