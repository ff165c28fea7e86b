"""A master key is rotated under load and killed in the midst: the short run. `python -m tests.house.rekeying` is the
whole one."""

from __future__ import annotations

from tests.house import rekeying


async def test_a_rotation_that_is_killed_loses_nothing_and_nobody_notices() -> None:
    run = await rekeying.run(people=8, rows=2_000, kills=1)
    assert run.failures == []
    assert run.count["kills"] == 2
    assert run.count["forms went on"] == 16, (
        "one kept and sent on before the key changed, one kept before and sent after"
    )
    assert run.count["secrets that open"] >= 2_000 + 8
    assert run.count["told: resumed"] == 2, "once for each time it went on after a kill"
    assert run.count["told: published"] <= 1, "unless it was killed between the file and the event"
    assert run.count["told: seals now"] == 1, "by the gateway"
    assert run.count["told: sealed anew"] == 1
    assert run.count["backup codes used"] > 16
