"""user_page: a page from three queries side by side, over two connections."""

import asyncio
import sqlite3
import threading

started, answer = threading.Event(), threading.Event()


def slow() -> int:
    started.set()
    answer.wait()
    return 1


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.create_function("slow", 0, slow)
    return connection


places, free = asyncio.Semaphore(2), [connect(), connect()]


async def query(sql: str, *values):
    async with places:
        connection = free.pop()
        try:
            return await asyncio.to_thread(lambda: connection.execute(sql, values).fetchone()[0])
        finally:
            free.append(connection)


async def main() -> None:
    user = query("SELECT 'User ' || ?", 1)
    orders = query("SELECT ? + 2", 3)
    profile = query("SELECT 'Collects ' || ?", "stamps")
    print("page:", await asyncio.gather(user, orders, profile))

    slow_query = asyncio.create_task(query("SELECT slow()"))
    await asyncio.to_thread(started.wait)
    slow_query.cancel()
    await asyncio.gather(slow_query, return_exceptions=True)
    print("given up: free connections", len(free), "and its query has an answer:", answer.is_set())
    answer.set()


asyncio.run(main())
