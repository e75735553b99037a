"""The process in which onnx.py measures onnxruntime, in an environment that has it.

    python onnx_worker.py MODEL THREADS PHOTO

Reads commands from standard input, and answers each with a line of JSON:

    answer                  outputs for the tensor of `infer bench --task tensor`
    label                   most likely label of the photo
    tensor SECONDS          inferences per second of a session with THREADS threads
    write JSON              file with the photo in another `format` and `size`, at `path`
    photo WORKERS SECONDS   photos per second, from the file's bytes to a label, of WORKERS threads,
                            each with a session of one thread
"""

import concurrent.futures
import io
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "scripts"))
import golden  # noqa: E402  (its preprocessing is that of the classify guest)


def session(model: str, threads: int) -> onnxruntime.InferenceSession:
    """Returns a session with onnxruntime's defaults, its fastest: threads spin after work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(golden.WEIGHTS / model / "model.onnx", options, providers=["CPUExecutionProvider"])


def made(model: str) -> dict[str, np.ndarray]:
    """Returns the inputs of `infer bench`: host/bench/src/sample.rs."""
    inputs = {}
    for tensor_input in golden.card_of(model)["inputs"]:
        shape = [axis if isinstance(axis, int) else 1 for axis in tensor_input["shape"]]
        values = np.arange(int(np.prod(shape)), dtype=np.int64) * 7919 % 256
        whole = tensor_input["dtype"] == "i32"
        array = values.astype(np.int32) if whole else ((values - 127) / 128).astype(np.float32)
        inputs[tensor_input["name"]] = array.reshape(shape)
    return inputs


def repeat(work: object, seconds: float) -> int:
    """Returns the number of runs of `work` in `seconds`."""
    count, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        work()
        count += 1
    return count


class Labeller:
    """Finds the most likely label of a photo, from its bytes."""

    def __init__(self, model: str, photo: bytes) -> None:
        self.image = golden.card_of(model)["inputs"][0]["image"]
        self.labels = golden.labels_of(model)
        self.photo, self.session = photo, session(model, 1)
        self.name = self.session.get_inputs()[0].name

    def label(self) -> str:
        """Returns the label, computed as in the classify guest."""
        photo = Image.open(io.BytesIO(self.photo))
        # The smallest picture of a JPEG whose central square is not smaller than the model's input.
        side = math.ceil(224 / self.image["crop"])
        photo.draft("RGB", (side, side))
        _, pixels = golden.cropped(golden.upright(photo), self.image["crop"])
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
            case ["write", *words]:
                wanted = json.loads(" ".join(words))
                picture = Image.open(io.BytesIO(photo)).convert("RGB").resize(wanted["size"], Image.Resampling.LANCZOS)
                picture.save(wanted["path"], wanted["format"], **wanted["options"])
                answer = True
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
                raise SystemExit(f"expected `answer`, `label`, `tensor SECONDS`, `write JSON` or `photo WORKERS SECONDS`, found `{line.strip()}`")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
