"""transaction: a caller that gives up before the commit."""

import asyncio
import sqlite3
import tempfile
import threading


def order(path: str, written: threading.Event, paid: threading.Event) -> None:
    database = sqlite3.connect(path)
    with database:  # commits at its end, or rolls back after an exception
        database.execute("INSERT INTO orders VALUES ('user 1')")
        written.set()
        paid.wait()
    database.close()


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/orders.db"
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE orders (who TEXT NOT NULL)")
        written, paid = threading.Event(), threading.Event()
        call = asyncio.create_task(asyncio.to_thread(order, path, written, paid))
        await asyncio.to_thread(written.wait)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            print("the caller was told: cancelled")
        paid.set()
        while not rows(database):  # the thread knows nothing of the cancellation
            await asyncio.sleep(0.01)
        print("orders that were committed all the same:", rows(database))


def rows(database: sqlite3.Connection) -> int:
    return database.execute("SELECT count(*) FROM orders").fetchone()[0]


asyncio.run(main())
