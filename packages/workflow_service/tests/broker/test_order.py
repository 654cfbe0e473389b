"""The rule that keeps a producer's order although folder listings are no snapshots."""

from hypothesis import given
from hypothesis import strategies as st

from workflow_service.gateways.broker_folder import in_order


def name(stamp: int, producer: str) -> str:
    """Return a message's file name."""
    return f"{stamp:020d}.{producer}.0"


@given(st.data())
def test_no_message_overtakes_its_producers_earlier_ones(data: st.DataObject) -> None:
    """Whatever a listing misses of what is added meanwhile, each producer's messages come without a gap."""
    added = [name(stamp, data.draw(st.sampled_from("abc"))) for stamp in range(data.draw(st.integers(0, 12)))]
    added = data.draw(st.permutations(added).map(_each_producer_in_order))
    cuts = sorted(data.draw(st.integers(0, len(added))) for _ in range(3))
    during_first = data.draw(st.sets(st.sampled_from(added[cuts[0] : cuts[1]] or [""])))
    during_second = data.draw(st.sets(st.sampled_from(added[cuts[1] : cuts[2]] or [""])))
    first = [entry for entry in [*added[: cuts[0]], *during_first] if entry]
    second = [entry for entry in [*added[: cuts[1]], *during_second] if entry]

    taken = in_order(first, second)

    assert set(first) <= set(taken)
    assert taken == sorted(taken)
    for producer in "abc":
        mine = [entry for entry in taken if entry.split(".")[1] == producer]
        assert mine == [entry for entry in added if entry.split(".")[1] == producer][: len(mine)]


def _each_producer_in_order(names: list[str]) -> list[str]:
    queues = {producer: iter(sorted(n for n in names if n.split(".")[1] == producer)) for producer in "abc"}
    return [next(queues[entry.split(".")[1]]) for entry in names]
