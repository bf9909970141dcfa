"""What a reader of the snapshots makes of records and rows."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import orjson
import pytest
from reference import Oracle

from streamlstm.engine.backend import make_backend
from streamlstm.engine.forecaster import Forecaster, ForecasterSettings
from streamlstm.engine.prediction import row_layout
from streamlstm.events.batch import EventBatch
from streamlstm.kernels.layout import STATE_ABI, StateDtype
from streamlstm.service.inspect_state import Cover, judged
from streamlstm.service.stream_columns import columns_of, json_rows, keys_of
from streamlstm.state.snapshot import ROOT, Header, Leaf, encode_chunk
from tests.engine.expected import INPUTS, SCALINGS, Expected, make_model

OWNER = ("group", "events", 3)
HEADER = Header(*OWNER, 100, 7, "model", STATE_ABI, 1_730_000_000_000, None, 2, 64)
LOW, HIGH = ROOT.children()


def chunk(offset: int, **changes: object) -> bytes:
    """A chunk of two streams, `a` and `bc`."""
    header = replace(HEADER, offset=offset, **changes)  # type: ignore[arg-type]
    keys = np.frombuffer(b"abc", np.uint8)
    return encode_chunk(header, np.array([1, 2], np.uint16), keys, np.zeros((2, header.row_bytes), np.uint8))


def cover(*records: tuple[Leaf, bytes | None], keep: bool = False) -> Cover:
    """Of records in the order of the log."""
    found = Cover(OWNER, None, "float32", lambda _: keep)
    for leaf, value in reversed(records):
        found.load(leaf.key, value)
    return found


def tags(found: Cover) -> dict[Leaf, int]:
    return {leaf: stored.header.offset for leaf, stored in found.chunks.items()}


class TestCover:
    def test_the_newest_version_counts(self) -> None:
        found = cover((LOW, chunk(1)), (HIGH, chunk(2)), (LOW, chunk(3)))
        assert tags(found) == {LOW: 3, HIGH: 2}
        assert found.chunks[LOW].size == len(chunk(3))
        assert found.chunks[LOW].chunk is None

    def test_a_split_and_its_tombstone(self) -> None:
        whole = ((ROOT, chunk(1)), (ROOT, None), (LOW, chunk(2)), (HIGH, chunk(2)))
        assert tags(cover(*whole)) == tags(cover(whole[0], *whole[2:], whole[1])) == {LOW: 2, HIGH: 2}

    def test_what_is_written_later_counts_against_what_it_overlaps(self) -> None:
        assert tags(cover((LOW, chunk(1)), (HIGH, chunk(1)), (ROOT, chunk(2)))) == {ROOT: 2}
        assert tags(cover((ROOT, chunk(1)), (LOW.children()[1], chunk(2)))) == {LOW.children()[1]: 2}

    def test_a_damaged_version_leaves_the_older_one(self) -> None:
        damaged = bytearray(chunk(2))
        damaged[-70] ^= 1
        found = cover((ROOT, chunk(1)), (ROOT, bytes(damaged)))
        assert tags(found) == {ROOT: 1}
        assert found.flaws[ROOT].kind == "corrupt"
        assert not cover((ROOT, bytes(damaged)), (ROOT, chunk(3))).flaws

    def test_an_older_version_is_a_problem_where_chunks_go_together(self) -> None:
        """As for a restart: in a partition with a bound of streams."""
        damaged = bytearray(chunk(2))
        damaged[-70] ^= 1
        found = cover((ROOT, chunk(1)), (ROOT, bytes(damaged)))
        kinds = {is_: [each.kind for each in judged(found, 3, 5, 0, 9, bounded=is_).problems] for is_ in (False, True)}
        assert kinds == {False: [], True: ["corrupt"]}
        unread = cover((LOW, chunk(1)), (HIGH, chunk(1)))
        unread.damaged.append("offsets 7 to 8: CRC")
        kinds = {is_: [each.kind for each in judged(unread, 3, 5, 0, 9, bounded=is_).problems] for is_ in (False, True)}
        assert kinds == {False: [], True: ["corrupt"]}

    @pytest.mark.parametrize(
        ("changes", "kind"), [({"group": "x"}, "foreign"), ({"partition": 4}, "foreign"), ({"abi": 1}, "abi")]
    )
    def test_what_is_not_ours(self, changes: dict[str, object], kind: str) -> None:
        found = cover((ROOT, chunk(1, **changes)))
        assert (tags(found), found.flaws[ROOT].kind) == ({}, kind)

    def test_another_model_is_told_where_the_model_is_known(self) -> None:
        model = make_model(SCALINGS["none"])
        found = Cover(OWNER, model, "float32", lambda _: False)
        for leaf, changes in (
            (LOW, {}),
            (HIGH, {"model": model.model_hash}),
            (ROOT, {"model": model.model_hash, "state_dtype": "float16"}),
        ):
            found.load(leaf.key, chunk(1, **changes))
        assert [found.flaws[leaf].kind for leaf in (LOW, HIGH, ROOT)] == ["model", "abi", "dtype"]
        assert found.flaws[ROOT].message == "expected float32, found float16"
        row_bytes = row_layout(model, "float16").row_bytes
        sound = {"model": model.model_hash, "state_dtype": "float16", "row_bytes": row_bytes}
        theirs = Cover(OWNER, model, "float16", lambda _: False)
        theirs.load(ROOT.key, chunk(1, **sound))
        assert not theirs.flaws

    def test_other_records_and_what_is_kept(self) -> None:
        found = cover(keep=True)
        found.load(b"not a chunk", b"x")
        found.load(ROOT.key, chunk(1))
        kept = found.chunks[ROOT].chunk
        assert kept is not None
        assert keys_of(kept) == ["a", "bc"]


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-6), ("float16", 2.0**-11), ("bfloat16", 2.0**-8)])
def test_h_and_c_are_given_as_float32(dtype: StateDtype, most: float) -> None:
    model = make_model(SCALINGS["none"])
    backend = make_backend("cpu", model.parameters, row_layout(model, dtype), 2)
    oracle, x = Oracle(model.parameters), np.array([[0.3, -0.7], [1.5, 0.2]], np.float32)
    backend.step(np.array([1, 0]), x, np.zeros((2, 3), np.float32), 2)
    columns = columns_of(model, backend.arena, dtype)
    for slot in (0, 1):
        oracle.event(slot, x[1 - slot])
        for k, (h, c) in enumerate(oracle.state(slot)):
            for name, true in ((f"h_{k}", h), (f"c_{k}", c)):
                assert columns[name].dtype == np.float32
                np.testing.assert_allclose(columns[name][slot], true, rtol=1.01 * most, atol=1e-6)


@pytest.mark.parametrize("window", [0, 6])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_columns_are_what_the_streams_have_seen(scaling: str, window: int) -> None:
    """Rows of a real arena, after 4 and 9 events of two streams, against the oracle."""
    model = make_model(SCALINGS[scaling], window=window)
    rng = np.random.default_rng(3)
    streams = [*[0] * 4, *[1] * 9]
    x = np.stack([rng.normal(10, 4, len(streams)), rng.normal(-3, 0.5, len(streams))], axis=1)
    batch = EventBatch(INPUTS, np.zeros(0, np.uint8), len(streams))
    for i, stream in enumerate(streams):
        batch.stream_at[i], batch.stream_len[i] = batch.append_payload(b"%d" % stream), 1
    batch.event_time[: len(streams)] = np.arange(len(streams)) + 1_000
    batch.timestamp[: len(streams)] = batch.event_time[: len(streams)]
    batch.x[: len(streams)] = x
    batch.extend_run("events", 0, len(streams))
    with ThreadPoolExecutor(1) as executor:
        forecaster = Forecaster(model, ForecasterSettings(max_streams=8), executor)
        yhat = forecaster.forecast(batch).yhat[: len(streams)].copy()
    slots = forecaster.slots.slots_of(forecaster.partition_index("events", 0))
    columns = columns_of(model, forecaster.backend.arena[slots], "float32")
    assert columns["n_seen"].tolist() == [4, 9]
    assert columns["last_ts"].tolist() == [1_003, 1_012]
    assert columns["x"].tolist() == x[[3, 12]].tolist()
    assert columns["yhat"].tolist() == yhat[[3, 12]].tolist()
    expected = Expected(model)
    for stream, value in zip(streams, x, strict=True):
        expected.event(stream, value)
    for row in (0, 1):
        if scaling == "running":
            np.testing.assert_allclose(columns["mean"][row], expected.moments[row][1])
            np.testing.assert_allclose(columns["variance"][row], expected.moments[row][2])
        if window:
            seen = np.array(expected.oracle._inputs[row])
            np.testing.assert_allclose(columns["window"][row, window - len(seen) :], seen, rtol=1e-6)
            assert not columns["window"][row, : window - len(seen)].any()
            continue
        for k, (h, c) in enumerate(expected.oracle.state(row)):
            np.testing.assert_allclose(columns[f"h_{k}"][row], h, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(columns[f"c_{k}"][row], c, rtol=1e-4, atol=1e-5)
    as_json = [orjson.loads(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)) for row in json_rows(columns)]
    assert [row["n_seen"] for row in as_json] == [4, 9]
    if window:
        assert [len(row["window"]) for row in as_json] == [4, 6]
    else:
        assert [[len(layer["h"]) for layer in row["layers"]] for row in as_json] == [[12, 9], [12, 9]]
