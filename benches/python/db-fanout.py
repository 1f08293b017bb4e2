"""The jobs of benches/db-fanout.rs in asyncio. `db-fanout.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

ENOUGH = 0.3  # seconds of measuring, and at least one run


USERS = 10_000
QUERIES = [
    "SELECT name FROM users WHERE id = ?",
    "SELECT bio FROM profiles WHERE user_id = ?",
    "SELECT item FROM orders WHERE user_id = ?",
]


def shop(folder):
    connection = sqlite3.connect(folder + "/shop.db", check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode = wal")
    return connection


def fill(folder):
    connection = shop(folder)
    connection.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
    connection.execute("CREATE TABLE profiles (user_id INTEGER PRIMARY KEY, bio TEXT)")
    connection.execute("CREATE TABLE orders (user_id INTEGER PRIMARY KEY, item TEXT)")
    connection.execute("BEGIN")
    for table, text in [("users", "User"), ("profiles", "Collects"), ("orders", "stamp")]:
        rows = ((number, f"{text} {number}") for number in range(1, USERS + 1))
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", rows)
    connection.execute("COMMIT")
    connection.close()


async def user_page(pages, callers, connections):
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(connections) as threads:
        fill(folder)
        free, loop = [shop(folder) for _ in range(connections)], asyncio.get_running_loop()
        places = asyncio.Semaphore(connections)

        async def query(sql, number):
            async with places:
                connection = free.pop()
                try:
                    ask = lambda: connection.execute(sql, (number,)).fetchone()[0]
                    return await loop.run_in_executor(threads, ask)
                finally:
                    free.append(connection)

        async def caller(first):
            for number in range(first, pages, callers):
                number = 1 + number * 7919 % USERS
                await asyncio.gather(*(query(sql, number) for sql in QUERIES))

        start = time.perf_counter()
        await asyncio.gather(*(caller(first) for first in range(callers)))
        took = time.perf_counter() - start
        for connection in free:
            connection.close()
        return took


async def row_loader(loads, requests):
    database, loop, waiting = sqlite3.connect(":memory:"), asyncio.get_running_loop(), {}
    database.execute("CREATE TABLE authors (id INTEGER PRIMARY KEY, name TEXT)")
    database.executemany("INSERT INTO authors VALUES (?, ?)", ((key, f"Author {key}") for key in range(1000)))

    def ask():
        keys, callers = list(waiting), dict(waiting)
        waiting.clear()
        sql = f"SELECT id, name FROM authors WHERE id IN ({', '.join('?' * len(keys))})"
        found = dict(database.execute(sql, keys))
        for key, futures in callers.items():
            for future in futures:
                future.set_result(found[key])

    async def load(rows, key):
        if key not in rows:
            rows[key] = future = loop.create_future()
            if not waiting:
                loop.call_soon(ask)
            waiting.setdefault(key, []).append(future)
        return await rows[key]

    async def request(number):
        rows, each = {}, loads // requests
        await asyncio.gather(*(load(rows, (number * 31 + story // 2 * 7) % 1000) for story in range(each)))

    await asyncio.gather(*(request(number) for number in range(requests)))


async def row_stream(rows, ahead):
    database = sqlite3.connect(":memory:", check_same_thread=False)
    sql = """WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
             SELECT i, 'sensor ' || (i % 10) FROM n"""
    cursor, seen, loop = database.execute(sql, (rows,)), 0, asyncio.get_running_loop()
    while some := await loop.run_in_executor(None, cursor.fetchmany, ahead):
        for _, name in some:
            seen += bool(name)
    assert seen == rows


INSERT = "INSERT INTO t VALUES (?, ?)"


class Database:
    """A new file, and the thread that uses it."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.thread = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_):
        self.thread.submit(self.database.close).result()
        self.thread.shutdown()
        self.folder.cleanup()

    async def run(self, work, *arguments):
        return await asyncio.get_running_loop().run_in_executor(self.thread, work, *arguments)

    def open(self):
        self.database = sqlite3.connect(self.folder.name + "/t.db", isolation_level=None)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = NORMAL")
        self.database.execute("CREATE TABLE t (n INTEGER NOT NULL, name TEXT NOT NULL)")

    def execute(self, *arguments):
        self.database.execute(*arguments)

    def together(self, rows):
        self.database.execute("BEGIN IMMEDIATE")
        self.database.executemany(INSERT, ((n, f"name {n}") for n in range(rows)))
        self.database.execute("COMMIT")


async def transaction(rows):
    with Database() as database:
        await database.run(database.open)
        start = time.perf_counter()
        for n in range(rows):
            await database.run(database.execute, "BEGIN IMMEDIATE")
            await database.run(database.execute, INSERT, (n, f"name {n}"))
            await database.run(database.execute, "COMMIT")
        return time.perf_counter() - start


async def sqlite_writer(callers, each):
    with Database() as database:
        await database.run(database.open)
        start = time.perf_counter()

        async def caller():
            for n in range(each):
                await database.run(database.execute, INSERT, (n, f"name {n}"))

        await asyncio.gather(*(caller() for _ in range(callers)))
        return time.perf_counter() - start


async def bulk_insert(rows):
    with Database() as database:
        await database.run(database.open)
        start = time.perf_counter()
        await database.run(database.together, rows)
        return time.perf_counter() - start


async def measure(job, numbers):
    runs, begin = [], time.perf_counter()
    while time.perf_counter() - begin < ENOUGH:
        start = time.perf_counter()
        own_time = await job(*numbers)
        runs.append(own_time or time.perf_counter() - start)
    return statistics.median(runs)


def main():
    event_loop, job, *numbers = sys.argv[1:]
    if event_loop == "uvloop":
        import uvloop as runner
    else:
        runner = asyncio
    print(runner.run(measure(globals()[job], [int(number) for number in numbers])))


main()
