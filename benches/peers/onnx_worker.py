"""One onnxruntime session per thread in Python, timed on command: what onnx.py runs in an environment that has onnxruntime.

    python onnx_worker.py MODEL THREADS PHOTO

Lines on standard input are obeyed, and each answered by a line of JSON: `answer` gives the outputs for a made tensor, the one of
`infer bench --task tensor`; `label` the likeliest label of the photo; `tensor SECONDS` the inferences a second of a session that has THREADS; and
`photo WORKERS SECONDS` the photos a second, from a file's bytes to a label, of so many workers with sessions of one thread.
"""

import concurrent.futures
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "scripts"))
import golden  # noqa: E402  (what it makes of a photo is what the classify guest does)


def session(model: str, threads: int) -> onnxruntime.InferenceSession:
    """A session as onnxruntime makes it: its threads spin for a while after work, which is its fastest."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(golden.WEIGHTS / model / "model.onnx", options, providers=["CPUExecutionProvider"])


def made(model: str) -> dict[str, np.ndarray]:
    """The inputs that `infer bench` makes: host/bench/src/sample.rs."""
    inputs = {}
    for asked in golden.card_of(model)["inputs"]:
        shape = [axis if isinstance(axis, int) else 1 for axis in asked["shape"]]
        values = np.arange(int(np.prod(shape)), dtype=np.int64) * 7919 % 256
        whole = asked["dtype"] == "i32"
        array = values.astype(np.int32) if whole else ((values - 127) / 128).astype(np.float32)
        inputs[asked["name"]] = array.reshape(shape)
    return inputs


def repeat(work: object, seconds: float) -> int:
    """The number of runs of `work` in the given seconds."""
    count, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        work()
        count += 1
    return count


class Labeller:
    """A photo's bytes to its likeliest label."""

    def __init__(self, model: str, photo: bytes) -> None:
        self.image = golden.card_of(model)["inputs"][0]["image"]
        self.labels = golden.labels_of(model)
        self.photo, self.session = photo, session(model, 1)
        self.name = self.session.get_inputs()[0].name

    def label(self) -> str:
        """As the classify guest finds it."""
        _, pixels = golden.cropped(golden.upright(io.BytesIO(self.photo)), self.image["crop"])
        values = golden.normalised(pixels, self.image).transpose(2, 0, 1)[None]
        return self.labels[int(np.argmax(self.session.run(None, {self.name: np.ascontiguousarray(values)})[0]))]


def main() -> None:
    """Runs the commands."""
    model, threads, photo = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]).read_bytes()
    inputs, tensors = made(model), session(model, threads)
    for line in sys.stdin:
        match line.split():
            case ["answer"]:
                answer = [float(value) for value in tensors.run(None, inputs)[0].ravel()]
            case ["label"]:
                answer = Labeller(model, photo).label()
            case ["tensor", seconds]:
                repeat(lambda: tensors.run(None, inputs), 0.5)
                began = time.perf_counter()
                answer = repeat(lambda: tensors.run(None, inputs), float(seconds)) / (time.perf_counter() - began)
            case ["photo", workers, seconds]:
                labellers = [Labeller(model, photo) for _ in range(int(workers))]
                with concurrent.futures.ThreadPoolExecutor(len(labellers)) as pool:
                    list(pool.map(lambda one: repeat(one.label, 0.5), labellers))
                    began = time.perf_counter()
                    counts = list(pool.map(lambda one: repeat(one.label, float(seconds)), labellers))
                answer = sum(counts) / (time.perf_counter() - began)
            case _:
                raise SystemExit(f"expected `answer`, `label`, `tensor SECONDS` or `photo WORKERS SECONDS`, found `{line.strip()}`")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
