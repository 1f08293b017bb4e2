"""bulk_insert: one bad row among many."""

import asyncio
import sqlite3


def insert(database: sqlite3.Connection, rows: list[tuple[int]]) -> None:
    with database:  # commits at its end, or rolls back after an exception
        database.executemany("INSERT INTO numbers VALUES (?)", rows)


async def main() -> None:
    database = sqlite3.connect(":memory:", check_same_thread=False)
    database.execute("CREATE TABLE numbers (n INTEGER UNIQUE)")
    rows = [(n,) for n in range(1000)] + [(7,)]
    try:
        await asyncio.to_thread(insert, database, rows)
    except sqlite3.IntegrityError as error:  # which row it was, it does not say
        print("refused:", error)
    print("stored:", database.execute("SELECT count(*) FROM numbers").fetchone()[0])


asyncio.run(main())
