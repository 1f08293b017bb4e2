"""The jobs of benches/db-fanout.rs in asyncio. `db-fanout.py asyncio|uvloop JOB NUMBER...` prints the seconds of one run."""

import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

ENOUGH = 0.3  # seconds of measuring, and at least one run
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
