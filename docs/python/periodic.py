"""periodic: a steady rate without drift; after a stall, back to the beat."""

import asyncio
import math


async def periodic(period, job):
    """Skips what was missed, as MissedTickBehavior::Skip does."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    beat = 0
    while True:
        await asyncio.sleep(max(0, start + beat * period - loop.time()))
        if not await job(beat):
            return
        # The tick that became due during the run comes at once, late; the others are left out.
        late = math.floor((loop.time() - start) / period)
        if late <= beat + 1:
            beat += 1
        else:
            if not await job(late):
                return
            beat = late + 1


async def main() -> None:
    beats = []

    async def job(beat):
        beats.append(beat)
        await asyncio.sleep(0.5 if beat == 2 else 0.01)  # the third run takes 2.5 periods
        return beat < 6

    await periodic(0.2, job)
    print("beats", beats)


asyncio.run(main())
