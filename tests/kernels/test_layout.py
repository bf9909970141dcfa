import numpy as np
import pytest
from reference import random_parameters

from streamlstm.errors import InvariantError, ModelFileError
from streamlstm.kernels import packing
from streamlstm.kernels.cell import LOG2E
from streamlstm.kernels.layout import LINE, Layout, blocks, padded, workspace_bytes, workspace_parts


@pytest.mark.parametrize(
    ("hidden", "widest", "found"),
    [
        (1, 16, [(0, 4)]),
        (4, 16, [(0, 4)]),
        (5, 16, [(0, 8)]),
        (9, 16, [(0, 16)]),
        (16, 16, [(0, 16)]),
        (50, 16, [(0, 16), (16, 16), (32, 16), (48, 4)]),
        (23, 16, [(0, 16), (16, 8)]),
        (12, 8, [(0, 8), (8, 4)]),
        (15, 8, [(0, 8), (8, 8)]),
    ],
)
def test_blocks(hidden: int, widest: int, found: list[tuple[int, int]]) -> None:
    assert blocks(hidden, widest) == found


@pytest.mark.parametrize("widest", [16, 8])
def test_blocks_cover_every_unit_once_within_the_row(widest: int) -> None:
    for hidden in range(1, 300):
        cut = blocks(hidden, widest)
        units = [unit + k for unit, width in cut for k in range(width)]
        assert units == list(range(len(units)))
        assert hidden <= len(units) <= padded(hidden)
        assert padded(hidden) < hidden + 7.1 or padded(hidden) == hidden + (-hidden % 16)


@pytest.mark.parametrize(
    ("layout", "header", "row"),
    [
        (Layout(1, (50,), 1), 416, 448),
        (Layout(1, (64,), 1), 512, 576),
        (Layout(2, (64, 32), 1, moments=4), 768, 896),
        (Layout(1, (50,), 1, window=3), 24, 64),
        (Layout(3, (50,), 1, window=168), 2024, 2112),
    ],
)
def test_rows(layout: Layout, header: int, row: int) -> None:
    assert layout.header_offset == header
    assert layout.row_bytes == row
    assert layout.row_bytes % LINE == 0
    assert layout.row_bytes >= header + 8 * (2 + layout.outputs + layout.inputs + layout.moments)
    assert [8 * layout.header_at, 8 * layout.yhat_at] == [header, header + 16]
    assert layout.x_at == layout.yhat_at + layout.outputs
    assert layout.moments_at == layout.x_at + layout.inputs


def test_flops_counts_multiplications_and_additions() -> None:
    assert Layout(1, (50,), 1).flops == 2 * 4 * 50 * 51 + 2 * 50
    assert Layout(8, (64, 32), 12).flops == 2 * 4 * (64 * 72 + 32 * 96) + 2 * 12 * 32
    assert Layout(1, (50,), 1, window=10).flops == 10 * 2 * 4 * 50 * 51 + 2 * 50


def test_only_a_carried_state_has_a_dtype() -> None:
    halved = Layout(2, (64, 32), 1, moments=4, state_dtype="bfloat16")
    assert (halved.carried_bytes, halved.state_bytes, halved.header_offset) == (768, 384, 384)
    assert halved.without_state.state_dtype == "bfloat16"
    with pytest.raises(InvariantError, match="bfloat16"):
        Layout(1, (50,), 1, window=3, state_dtype="bfloat16")


def test_workspace_parts_are_aligned_and_complete() -> None:
    layout = Layout(2, (50, 20), 3, window=5)
    parts = workspace_parts(layout, 77, 1000)
    assert sorted(word for word, _ in parts) == list(range(len(parts)))
    assert all(size % LINE == 0 for _, size in parts)
    assert workspace_bytes(layout, 77, 1000) == sum(size for _, size in parts)


@pytest.mark.parametrize("widest", [16, 8])
@pytest.mark.parametrize(("inputs", "hidden", "outputs"), [(1, (50,), 1), (3, (23, 64), 5), (2, (1,), 20)])
def test_packed_weights_are_the_scaled_ones_in_reading_order(
    inputs: int, hidden: tuple[int, ...], outputs: int, widest: int
) -> None:
    p = random_parameters(np.random.default_rng(0), inputs, hidden, outputs)
    layers = [(layer.weight_ih, layer.weight_hh, layer.bias) for layer in p.layers]
    packed = packing.pack(layers, p.head_weight, p.head_bias, widest)
    assert packed.buffer.ctypes.data % LINE == 0
    if widest == 16:
        assert packed.buffer.nbytes == packing.packed_bytes(inputs, hidden, outputs)
    factor = {0: -LOG2E, 1: -LOG2E, 2: 2 * LOG2E, 3: -LOG2E}
    for layer, offsets in zip(p.layers, packed.block_offsets, strict=True):
        H, n_x = layer.hidden, layer.inputs
        for (unit, width), offset in zip(blocks(H, widest), offsets, strict=True):
            assert offset % LINE == 0
            block = packed.buffer[offset:].view(np.float32)[: (1 + n_x + H) * 4 * width].reshape(-1, 4, width)
            for gate in range(4):
                for u in range(width):
                    row = gate * H + unit + u
                    column = block[:, gate, u]
                    if unit + u >= H:
                        assert not column.any()
                        continue
                    true = np.concatenate([layer.bias[row : row + 1], layer.weight_ih[row], layer.weight_hh[row]])
                    assert (column == (true.astype(np.float64) * factor[gate]).astype(np.float32)).all()
    lanes = -(-padded(hidden[-1]) // 16) * 16
    head = packed.buffer[packed.head_weight :].view(np.float32)[: outputs * lanes].reshape(outputs, lanes)
    assert (head[:, : hidden[-1]] == p.head_weight).all()
    assert not head[:, hidden[-1] :].any()
    assert (packed.buffer[packed.head_bias :].view(np.float32)[:outputs] == p.head_bias).all()


def limit_of(weight_ih: float = 0.5, weight_hh: float = 0.1, above: float = 0.1, head: float = 1.0) -> float:
    def full(value: float, *shape: int) -> np.ndarray:
        return np.full(shape, value, np.float32)

    first = (full(weight_ih, 8, 2), full(weight_hh, 8, 2), full(0.0, 8))
    second = (full(above, 8, 2), full(above, 8, 2), full(0.0, 8))
    return packing.input_limit([first, second], full(head, 1, 2), full(0.0, 1))


def test_input_limit_leaves_room_for_the_largest_sum() -> None:
    largest = float(np.finfo(np.float32).max)
    assert limit_of(0.5) == pytest.approx(largest / (1.01 * 2 * 0.5 * 2 * LOG2E), rel=1e-6)
    assert limit_of(0.0) == pytest.approx(largest, rel=1e-6)


@pytest.mark.parametrize(
    "weights", [{"weight_hh": 1e38}, {"above": 1e38}, {"head": 2e38}, {"weight_hh": 3e38}, {"head": float("inf")}]
)
def test_weights_without_room_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ModelFileError, match="overflow"):
        limit_of(**weights)
