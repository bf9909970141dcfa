"""Back-propagation through time of an LSTM layer and of the linear head: each forward beside its backward.

Werbos 1990; truncated, as in Williams & Peng 1990: state flows in from the sequence before, and whether its derivative
is used is the caller's choice. Letters: T steps, B sequences, I inputs, H hidden, O outputs; gates i, f, g, o.

A layer's inputs and its hidden state lie side by side, `joined` [T + 1][B][I + H], so that each direction is one matrix
product per step, and the weights' gradient one for some steps together:

    z_t = [x_t | h_t] W + b          [dx_t | dh_t] = dz_t Wᵀ          dW += sum over t, sequences of [x_t | h_t]ᵀ dz_t

Row t of `joined` holds x_t and the h before step t; the last holds the final h. W is (I + H, 4H), the transposes of
PyTorch's weight_ih and weight_hh one over the other: 4H columns fill vectors better than I + H would.

Every function takes arrays of one dtype, float32 or float64, C-contiguous, and hands their addresses down: an array
made in here could be freed before the product that reads it, so none is. Sums run in an order that depends on the
shapes alone (kernels.matmul): t upwards within a group of steps, groups downwards, sequences upwards.
"""

from typing import Any

from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, inlined
from streamlstm.kernels.gates import activate_row, differentiate_row
from streamlstm.kernels.matmul import multiply_add

Reals = NDArray[Any]

TERMS_AT_ONCE = 192  # rows of dz that the product for dW takes together, so that they are still in the first caches


@compiled
def transpose(matrix: Reals, transposed: Reals) -> None:
    """Write the transpose of `matrix` to `transposed`, a square of 16 x 16 at a time."""
    rows, columns = matrix.shape
    tile = 16
    for first_row in range(0, rows, tile):
        for first_column in range(0, columns, tile):
            for column in range(first_column, min(first_column + tile, columns)):
                for row in range(first_row, min(first_row + tile, rows)):
                    transposed[column, row] = matrix[row, column]


@compiled
def layer_forward(joined: Reals, weight: Reals, bias: Reals, gates: Reals, cells: Reals, tanh_cells: Reals) -> None:
    """T steps of one layer.

    joined       [T + 1, B, I + H]: x of every step and h of row 0 are read, h of the other rows is written
    weight       (I + H, 4H), read
    bias         [4H], read
    gates        [T, B, 4H]: written, the values of i, f, g, o
    cells        [T + 1, B, H]: row 0 is read, the others are written
    tanh_cells   [T, B, H]: written, tanh of the cell state after each step
    """
    steps, batch, four_h = gates.shape
    hidden = four_h // 4
    inputs = joined.shape[2] - hidden
    size = joined.itemsize
    real = joined[0, 0, 0]
    joined_row, gate_row, hidden_row = size * (inputs + hidden), size * four_h, size * hidden
    joined_at, gates_at = joined.ctypes.data, gates.ctypes.data
    c_at, tanh_at = cells.ctypes.data, tanh_cells.ctypes.data
    weight_at, bias_at = weight.ctypes.data, bias.ctypes.data
    for _ in range(steps):
        multiply_add(
            real, batch, four_h, inputs + hidden, joined_at, joined_row, size, weight_at, gate_row, bias_at, 0,
            gates_at, gate_row,
        )  # fmt: skip
        joined_at += batch * joined_row
        c_after = c_at + batch * hidden_row
        for row in range(batch):
            activate_row(
                real, hidden, gates_at + row * gate_row, c_at + row * hidden_row, c_after + row * hidden_row,
                tanh_at + row * hidden_row, joined_at + row * joined_row + size * inputs,
            )  # fmt: skip
        gates_at += batch * gate_row
        tanh_at += batch * hidden_row
        c_at = c_after


@inlined
def _add_weight_gradient(joined: Reals, dz: Reals, first: int, steps: int, d_weight: Reals, d_bias: Reals) -> None:
    """d_weight += joinedᵀ dz, d_bias += the sum of dz, over all sequences of `steps` steps from `first` on."""
    batch, four_h = dz.shape[1:]
    width = joined.shape[2]
    size = d_weight.itemsize
    gate_row, joined_row = size * four_h, size * width
    weight_at = d_weight.ctypes.data
    multiply_add(
        joined[0, 0, 0], width, four_h, steps * batch,
        joined.ctypes.data + first * batch * joined_row, size, joined_row,
        dz.ctypes.data + first * batch * gate_row, gate_row, weight_at, gate_row, weight_at, gate_row,
    )  # fmt: skip
    for t in range(first, first + steps):
        for row in range(batch):
            for unit in range(four_h):
                d_bias[unit] += dz[t, row, unit]


@compiled
def layer_backward(
    joined: Reals, weight_t: Reals, gates: Reals, cells: Reals, tanh_cells: Reals, above: Reals, d_joined: Reals,
    dc: Reals, d_weight: Reals, d_bias: Reals, with_inputs: bool,
) -> None:  # fmt: skip
    """The derivatives of `layer_forward`, whose arrays it takes.

    joined, cells, tanh_cells   as forward left them; read
    weight_t   (4H, I + H), read: the transpose of forward's weight
    gates      [T, B, 4H]: the gates' values; overwritten by the derivatives by the pre-activations
    above      [T, B, >= max(H, I)]: the derivative by h after each step that comes from above (the head, a layer), in
               the first H columns; with `with_inputs` overwritten by the derivative by x, in the first I columns
    d_joined   [B, I + H]: in the last H columns the derivative by the final h; overwritten by that by the initial h.
               The first I columns are scratch
    dc         [B, H]: the derivative by the final c, overwritten by that by the initial c
    d_weight, d_bias   (I + H, 4H), (4H,): added to
    """
    steps, batch, four_h = gates.shape
    hidden = four_h // 4
    width = joined.shape[2]
    inputs = width - hidden
    size = joined.itemsize
    real = joined[0, 0, 0]
    joined_row, gate_row, hidden_row = size * width, size * four_h, size * hidden
    above_row = size * above.shape[2]
    gates_at, c_at = gates.ctypes.data, cells.ctypes.data
    tanh_at, above_at = tanh_cells.ctypes.data, above.ctypes.data
    d_joined_at, dc_at, weight_at = d_joined.ctypes.data, dc.ctypes.data, weight_t.ctypes.data
    first = 0 if with_inputs else inputs  # column of d_joined
    steps_at_once = max(1, TERMS_AT_ONCE // batch)
    pending = 0
    for t in range(steps - 1, -1, -1):
        gates_t = gates_at + t * batch * gate_row
        for row in range(batch):
            r = t * batch + row
            differentiate_row(
                real, hidden, gates_t + row * gate_row, c_at + r * hidden_row, tanh_at + r * hidden_row,
                above_at + r * above_row, d_joined_at + row * joined_row + size * inputs, dc_at + row * hidden_row,
            )  # fmt: skip
        d_joined[:] = 0.0
        multiply_add(
            real, batch, width - first, four_h, gates_t, gate_row, size, weight_at + size * first, joined_row,
            d_joined_at + size * first, joined_row, d_joined_at + size * first, joined_row,
        )  # fmt: skip
        if with_inputs:
            for row in range(batch):
                for k in range(inputs):
                    above[t, row, k] = d_joined[row, k]
        pending += 1
        if pending == steps_at_once or t == 0:
            _add_weight_gradient(joined, gates, t, pending, d_weight, d_bias)
            pending = 0


@compiled
def head_forward(joined: Reals, hidden: int, weight_t: Reals, bias: Reals, y_hat: Reals) -> None:
    """y_hat = head_weight h + head_bias after every step.

    joined     [T + 1, B, I + H] of the last layer, whose h are its last `hidden` columns; read
    weight_t   (H, O), bias (O,), read
    y_hat      [T, B, O], written
    """
    steps, batch, outputs = y_hat.shape
    size = joined.itemsize
    joined_row = size * joined.shape[2]
    h_at = joined.ctypes.data + batch * joined_row + joined_row - size * hidden
    multiply_add(
        joined[0, 0, 0], steps * batch, outputs, hidden, h_at, joined_row, size, weight_t.ctypes.data, size * outputs,
        bias.ctypes.data, 0, y_hat.ctypes.data, size * outputs,
    )  # fmt: skip


@compiled
def head_backward(joined: Reals, weight: Reals, d_y_hat: Reals, above: Reals, d_weight: Reals, d_bias: Reals) -> None:
    """The derivatives of `head_forward`.

    joined     as forward left it; read
    weight     (O, H), d_y_hat [T, B, O], read
    above      [T, B, >= H]: the derivative by h is written to the first H columns
    d_weight, d_bias   (O, H), (O,): added to
    """
    steps, batch, outputs = d_y_hat.shape
    hidden = weight.shape[1]
    size = joined.itemsize
    real = joined[0, 0, 0]
    joined_row, output_row = size * joined.shape[2], size * outputs
    h_at = joined.ctypes.data + batch * joined_row + joined_row - size * hidden
    d_y_at = d_y_hat.ctypes.data
    d_weight_at, above_at, above_row = d_weight.ctypes.data, above.ctypes.data, size * above.shape[2]
    for t in range(steps):
        for row in range(batch):
            for unit in range(hidden):
                above[t, row, unit] = d_y_hat[t, row, 0] * weight[0, unit]
            for output in range(outputs):
                d_bias[output] += d_y_hat[t, row, output]
    if outputs > 1:
        multiply_add(
            real, steps * batch, hidden, outputs - 1, d_y_at + size, output_row, size,
            weight.ctypes.data + size * hidden, size * hidden, above_at, above_row, above_at, above_row,
        )  # fmt: skip
    multiply_add(
        real, outputs, hidden, steps * batch, d_y_at, size, output_row, h_at, joined_row,
        d_weight_at, size * hidden, d_weight_at, size * hidden,
    )  # fmt: skip
