"""cpu_pool: computations on all cores. Threads share one lock in CPython, so it takes processes."""

import asyncio
from concurrent.futures import ProcessPoolExecutor


def count_primes(bounds: tuple[int, int]) -> int:
    low, high = bounds
    return sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(max(low, 2), high))


async def main() -> None:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2) as pool:
        # Arguments and results are pickled: a lambda or an open file cannot be handed over.
        parts = [(low, low + 2_500) for low in range(0, 10_000, 2_500)]
        counts = await asyncio.gather(*(loop.run_in_executor(pool, count_primes, part) for part in parts))
        print("primes below 10000:", sum(counts))
        try:
            await loop.run_in_executor(pool, lambda: 1)
        except Exception as error:
            print("a lambda:", "cannot be pickled" if "pickle" in str(error).lower() else error)


if __name__ == "__main__":  # each process imports this file again
    asyncio.run(main())
