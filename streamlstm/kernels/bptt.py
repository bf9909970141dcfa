"""Back-propagation through time of an LSTM layer and of the linear head: each forward beside its backward.

Werbos 1990; truncated, as in Williams & Peng 1990: state flows in from the sequence before, and whether its derivative
is used is the caller's choice. Letters: T steps, B sequences, I inputs, H hidden, O outputs; gates i, f, g, o.

A layer's inputs and its hidden state lie side by side, `joined` [T + 1][B][I + H], so that each direction is one matrix
product per step, and the weights' gradient one for some steps together:

    z_t = [x_t | h_t] W + b          [dx_t | dh_t] = dz_t Wᵀ          dW += sum over t, sequences of [x_t | h_t]ᵀ dz_t

Row t of `joined` holds x_t and the h before step t; the last holds the final h. W is (I + H, 4H), the transposes of
PyTorch's weight_ih and weight_hh one over the other: 4H columns fill vectors better than I + H would.

G, I', H': as many columns as 4H, I and H or some more, which are padding. Where rows fill whole cache lines, products
take 0.8 to 0.95 times as long: no vector of theirs lies across two.

Every function takes arrays of one dtype, float32 or float64, C-contiguous, and hands their addresses down: an array
made in here could be freed before the product that reads it, so none is. Sums run in an order that depends on the
shapes alone (kernels.matmul, narrow_product): t upwards within a group of steps, groups downwards, sequences upwards.
"""

from typing import Any

from numpy.typing import NDArray

from streamlstm.kernels.compile import compiled, inlined
from streamlstm.kernels.gates import activate_rows, differentiate_rows
from streamlstm.kernels.matmul import multiply_add
from streamlstm.kernels.narrow_product import multiply_add_narrow

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
    weight       (I + H, G), read
    bias         [4H], read
    gates        [T, B, G]: written, the values of i, f, g, o
    cells        [T + 1, B, H]: row 0 is read, the others are written
    tanh_cells   [T, B, H]: written, tanh of the cell state after each step
    """
    steps, batch, hidden = tanh_cells.shape
    width = joined.shape[2]
    size = joined.itemsize
    real = joined[0, 0, 0]
    joined_row, gate_row, hidden_row = size * width, size * gates.shape[2], size * hidden
    joined_at, gates_at = joined.ctypes.data, gates.ctypes.data
    c_at, tanh_at = cells.ctypes.data, tanh_cells.ctypes.data
    weight_at, weight_row, bias_at = weight.ctypes.data, size * weight.shape[1], bias.ctypes.data
    for _ in range(steps):
        multiply_add(
            real, batch, 4 * hidden, width, joined_at, joined_row, size, weight_at, weight_row, bias_at, 0,
            gates_at, gate_row,
        )  # fmt: skip
        joined_at += batch * joined_row
        c_after = c_at + batch * hidden_row
        h_after = joined_at + joined_row - hidden_row
        activate_rows(real, batch, hidden, gates_at, gate_row, c_at, c_after, tanh_at, h_after, joined_row)
        gates_at += batch * gate_row
        tanh_at += batch * hidden_row
        c_at = c_after


@inlined
def _add_weight_gradient(joined: Reals, dz: Reals, first: int, steps: int, d_weight: Reals, d_bias: Reals) -> None:
    """d_weight += joinedᵀ dz, d_bias += the sum of dz, over all sequences of `steps` steps from `first` on."""
    batch = dz.shape[1]
    width, four_h = d_weight.shape
    size = d_weight.itemsize
    gate_row, joined_row, weight_row = size * dz.shape[2], size * width, size * four_h
    weight_at = d_weight.ctypes.data
    multiply_add(
        joined[0, 0, 0], width, four_h, steps * batch,
        joined.ctypes.data + first * batch * joined_row, size, joined_row,
        dz.ctypes.data + first * batch * gate_row, gate_row, weight_at, weight_row, weight_at, weight_row,
    )  # fmt: skip
    for t in range(first, first + steps):
        for row in range(batch):
            for unit in range(four_h):
                d_bias[unit] += dz[t, row, unit]


@inlined
def _derivative_by_inputs(
    dz: Reals, weight: Reals, input_t: Reals, first: int, steps: int, inputs: int, above: Reals
) -> None:
    """Write dz input_t of all sequences of `steps` steps from `first` on to the first `inputs` columns of `above`."""
    batch = dz.shape[1]
    size = dz.itemsize
    gate_row, above_row = size * dz.shape[2], size * above.shape[2]
    above_at = above.ctypes.data + first * batch * above_row
    for t in range(first, first + steps):
        for row in range(batch):
            for k in range(inputs):
                above[t, row, k] = 0.0
    multiply_add_narrow(
        dz[0, 0, 0], steps * batch, inputs, input_t.shape[0], dz.ctypes.data + first * batch * gate_row, gate_row,
        input_t.ctypes.data, size * input_t.shape[1], weight.ctypes.data, size * weight.shape[1], above_at, above_row,
    )  # fmt: skip


@compiled
def layer_backward(
    joined: Reals, weight: Reals, recurrent_t: Reals, input_t: Reals, gates: Reals, cells: Reals, tanh_cells: Reals,
    above: Reals, dh: Reals, dc: Reals, d_weight: Reals, d_bias: Reals, with_inputs: bool,
) -> None:  # fmt: skip
    """The derivatives of `layer_forward`, whose arrays it takes.

    joined, cells, tanh_cells   as forward left them; read
    weight     (I + H, G), read
    recurrent_t, input_t   (4H, H'), (4H, I'), read: the transposes of its last H and of its first I rows; the second
               only with `with_inputs`
    gates      [T, B, G]: the gates' values; overwritten by the derivatives by the pre-activations
    above      [T, B, >= max(H, I)]: the derivative by h after each step that comes from above (the head, a layer), in
               the first H columns; with `with_inputs` overwritten by the derivative by x, in the first I columns
    dh, dc     [B, H]: the derivatives by the final h and c, overwritten by those by the initial ones
    d_weight, d_bias   (I + H, 4H), (4H,): added to
    """
    steps, batch, hidden = tanh_cells.shape
    inputs = joined.shape[2] - hidden
    size = joined.itemsize
    real = joined[0, 0, 0]
    gate_row, hidden_row, above_row = size * gates.shape[2], size * hidden, size * above.shape[2]
    gates_at, c_at = gates.ctypes.data, cells.ctypes.data
    tanh_at, above_at = tanh_cells.ctypes.data, above.ctypes.data
    dh_at, dc_at = dh.ctypes.data, dc.ctypes.data
    weight_row = size * weight.shape[1]
    recurrent_at = weight.ctypes.data + inputs * weight_row
    steps_at_once = max(1, TERMS_AT_ONCE // batch)
    pending = 0
    for t in range(steps - 1, -1, -1):
        row = t * batch
        gates_t = gates_at + row * gate_row
        differentiate_rows(
            real, batch, hidden, gates_t, gate_row, c_at + row * hidden_row, tanh_at + row * hidden_row, dh_at, dc_at,
            above_at + row * above_row, above_row,
        )  # fmt: skip
        dh[:] = 0.0
        multiply_add_narrow(
            real, batch, hidden, 4 * hidden, gates_t, gate_row, recurrent_t.ctypes.data, size * recurrent_t.shape[1],
            recurrent_at, weight_row, dh_at, hidden_row,
        )  # fmt: skip
        pending += 1
        if pending == steps_at_once or t == 0:
            _add_weight_gradient(joined, gates, t, pending, d_weight, d_bias)
            if with_inputs:
                _derivative_by_inputs(gates, weight, input_t, t, pending, inputs, above)
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
