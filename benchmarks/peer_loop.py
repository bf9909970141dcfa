"""The loop that streamlstm takes the place of, written as well as it can be in Python: the peer of end_to_end.py.

confluent-kafka (librdkafka) consumes batches of 20,000, orjson parses, a dict maps keys to rows, torch's LSTMCell or
ONNX Runtime steps a whole batch at once, or River (Holt's method for each stream) one event at a time, orjson prints
the same record that streamlstm writes, and one transaction holds forecasts and offsets. It checks CRCs and refuses what
isn't a finite number, as streamlstm does.
Prints one JSON line: events, CPU seconds (user + system of this process) and wall seconds, both after the warm-up.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import numpy as np
import orjson
from confluent_kafka import Consumer, Producer
from numpy.typing import NDArray

BATCH = 20_000
Step = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.float32]]


def torch_step(hidden: int, streams: int) -> Step:
    import torch  # noqa: PLC0415 - an optional peer

    torch.set_num_threads(1)
    cell, head = torch.nn.LSTMCell(1, hidden), torch.nn.Linear(hidden, 1)
    h, c = torch.zeros(streams, hidden), torch.zeros(streams, hidden)

    def step(rows: NDArray[np.int64], x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            index = torch.from_numpy(rows)
            h2, c2 = cell(torch.from_numpy(x[:, None]), (h.index_select(0, index), c.index_select(0, index)))
            h.index_copy_(0, index, h2)
            c.index_copy_(0, index, c2)
            return head(h2).numpy()[:, 0]

    return step


def onnx_step(hidden: int, streams: int) -> Step:
    import onnxruntime as ort  # noqa: PLC0415 - an optional peer
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> object:
        return numpy_helper.from_array(rng.normal(0, 0.1, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "B", "", "h", "c"], ["", "h2", "c2"], hidden_size=hidden),
        helper.make_node("Squeeze", ["h2", "axis"], ["last"]),
        helper.make_node("Gemm", ["last", "HW", "HB"], ["y"]),
    ]
    weights = [
        weight("W", 1, 4 * hidden, 1), weight("R", 1, 4 * hidden, hidden), weight("B", 1, 8 * hidden),
        weight("HW", hidden, 1), weight("HB", 1), numpy_helper.from_array(np.array([0], np.int64), "axis"),
    ]  # fmt: skip
    floats = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("x", floats, [1, None, 1])]
    inputs += [helper.make_tensor_value_info(name, floats, [1, None, hidden]) for name in ("h", "c")]
    outputs = [helper.make_tensor_value_info("y", floats, [None, 1])]
    outputs += [helper.make_tensor_value_info(name, floats, None) for name in ("h2", "c2")]
    graph = helper.make_graph(nodes, "step", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    h, c = np.zeros((streams, hidden), np.float32), np.zeros((streams, hidden), np.float32)

    def step(rows: NDArray[np.int64], x: NDArray[np.float32]) -> NDArray[np.float32]:
        y, h2, c2 = session.run(["y", "h2", "c2"], {"x": x[None, :, None], "h": h[None, rows], "c": c[None, rows]})
        h[rows], c[rows] = h2[0], c2[0]
        return y[:, 0]

    return step


def river_step(hidden: int, streams: int) -> Step:
    """Holt's linear method, one model per stream: River has no LSTM, and this is what it is used for."""
    from river.time_series import HoltWinters  # noqa: PLC0415 - an optional peer

    del hidden
    models = [HoltWinters(alpha=0.3, beta=0.1) for _ in range(streams)]

    def step(rows: NDArray[np.int64], x: NDArray[np.float32]) -> NDArray[np.float32]:
        y = np.empty(len(rows), np.float32)
        for i, (row, value) in enumerate(zip(rows.tolist(), x.tolist(), strict=True)):
            model = models[row]
            model.learn_one(value)
            y[i] = model.forecast(horizon=1)[0] if model.level else value  # it needs two events to have a trend
        return y

    return step


STEPS = {"torch": torch_step, "onnxruntime": onnx_step, "river": river_step}


def waves(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Positions of the first event of each stream, of the second, ...: a stream's events can't share a step."""
    left, found = np.arange(len(rows)), []
    while len(left):
        _, first = np.unique(rows[left], return_index=True)
        found.append(left[np.sort(first)])
        left = np.delete(left, first)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--runtime", choices=STEPS, required=True)
    args = parser.parse_args()
    step = STEPS[args.runtime](args.hidden, args.streams + 1)
    unique = f"peer-{os.getpid()}"
    consumer = Consumer(
        {
            "bootstrap.servers": args.bootstrap, "group.id": unique, "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "isolation.level": "read_committed", "queued.min.messages": 200_000,
            "check.crcs": True,
        }
    )  # fmt: skip
    producer = Producer(
        {
            "bootstrap.servers": args.bootstrap, "transactional.id": unique, "linger.ms": 5,
            "queue.buffering.max.messages": 1_000_000,
        }
    )  # fmt: skip
    producer.init_transactions()
    consumer.subscribe([args.input])
    rows_of: dict[bytes, int] = {}
    seen_of, last_of = [0] * args.streams, [0] * args.streams
    seen = counted = 0
    cpu = wall = 0.0
    while seen < args.events:
        messages = [m for m in consumer.consume(BATCH, 0.1) if m.error() is None]
        if not messages:
            continue
        if cpu == 0.0 and seen:  # the first batch warms up
            cpu, wall, counted = time.process_time(), time.perf_counter(), seen
        seen += len(messages)
        events = [orjson.loads(m.value()) for m in messages]
        rows = np.fromiter((rows_of.setdefault(m.key(), len(rows_of)) for m in messages), np.int64, len(messages))
        x = np.fromiter((e["value"] for e in events), np.float32, len(messages))
        if not np.isfinite(x).all():
            raise SystemExit("a value that isn't finite: this loop has no dead letters")
        y = np.empty(len(messages), np.float32)
        for wave in waves(rows):
            y[wave] = step(rows[wave], x[wave])
        producer.begin_transaction()
        for m, e, row, yhat in zip(messages, events, rows.tolist(), y.tolist(), strict=True):
            ts, n, last = e["ts"], seen_of[row] + 1, last_of[row]
            seen_of[row], last_of[row] = n, ts
            forecast = {
                "stream": m.key().decode(), "ts": ts, "y": e["value"], "yhat": [yhat], "horizon": [1],
                "target_ts": [2 * ts - last] if n > 1 and ts > last else None,
                "status": "ok" if n > 8 else "warmup", "n_seen": n, "model": "6599eda1ff6a",
                "src": {"topic": m.topic(), "partition": m.partition(), "offset": m.offset()},
            }  # fmt: skip
            producer.produce(
                args.output, orjson.dumps(forecast), m.key(), m.partition(), timestamp=ts, headers=m.headers()
            )
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata()
        )
        producer.commit_transaction()
    print(
        json.dumps({"events": seen - counted, "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall})
    )
    consumer.close()


if __name__ == "__main__":
    main()
