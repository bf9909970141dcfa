"""The pipeline of a library instead: Quix Streams, torch event by event, h and c in its state store; exactly-once.

A peer of end_to_end.py. Prints one JSON line: events, CPU seconds (user + system of this process) and wall seconds,
both after the warm-up.
"""

import argparse
import json
import os
import time

import numpy as np
import torch
from quixstreams import Application, State

WARM_UP = 0.1  # the part of the events before the clocks start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--hidden", type=int, default=50)
    parser.add_argument("--folder", required=True, help="of the state store")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cell, head = torch.nn.LSTMCell(1, args.hidden), torch.nn.Linear(args.hidden, 1)
    zeros = bytes(4 * args.hidden)
    seen, began = 0, (0.0, 0.0)

    def forecast(event: dict[str, float], state: State) -> dict[str, float | list[float]]:
        nonlocal seen, began
        seen += 1
        if seen == int(args.events * WARM_UP):
            began = time.process_time(), time.perf_counter()
        h, c = (
            torch.from_numpy(np.frombuffer(state.get_bytes(name, default=zeros), np.float32)[None].copy())
            for name in "hc"
        )
        with torch.inference_mode():
            h, c = cell(torch.tensor([[event["value"]]], dtype=torch.float32), (h, c))
            yhat = head(h)
        state.set_bytes("h", h.numpy().tobytes())
        state.set_bytes("c", c.numpy().tobytes())
        return {"ts": event["ts"], "y": event["value"], "yhat": [float(yhat)], "horizon": [1]}

    app = Application(
        broker_address=args.bootstrap, consumer_group=f"quix-{os.getpid()}", auto_offset_reset="earliest",
        processing_guarantee="exactly-once", commit_interval=0.5, state_dir=args.folder, loglevel="WARNING",
    )  # fmt: skip
    stream = app.dataframe(app.topic(args.input, value_deserializer="json"))
    stream = stream.apply(forecast, stateful=True).to_topic(app.topic(args.output, value_serializer="json"))
    app.run(count=args.events)
    cpu, wall = time.process_time() - began[0], time.perf_counter() - began[1]
    print(json.dumps({"events": seen - int(args.events * WARM_UP), "cpu_s": cpu, "wall_s": wall}))


if __name__ == "__main__":
    main()
