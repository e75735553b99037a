"""A text classifier behind uvicorn: Python's tokenizers and onnxruntime, POST /predict.

    MODEL=FOLDER THREADS=1 uvicorn --app-dir benches/peers/encoders server:app --workers 2

FOLDER is an export with `config.json`, `tokenizer.json` and `onnx/model.onnx`. The body is
`{"inputs": "…"}`, the answer a list of labels with scores, as text-embeddings-inference has it. A
request is computed where it arrives, so that no other thread waits for it.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from tokenizers import Tokenizer

MAX_TOKENS = 256

FOLDER = Path(os.environ["MODEL"])
CONFIG = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))
LABELS = [CONFIG["id2label"][str(index)] for index in range(len(CONFIG["id2label"]))]

TOKENIZER = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
TOKENIZER.no_padding()
TOKENIZER.enable_truncation(MAX_TOKENS)

OPTIONS = onnxruntime.SessionOptions()
OPTIONS.intra_op_num_threads = int(os.environ.get("THREADS", "1"))
SESSION = onnxruntime.InferenceSession(FOLDER / "onnx" / "model.onnx", OPTIONS, providers=["CPUExecutionProvider"])
INPUTS = [port.name for port in SESSION.get_inputs()]


async def predict(request: Request) -> JSONResponse:
    """Returns the score of each label for one text."""
    encoded = TOKENIZER.encode((await request.json())["inputs"])
    rows = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask}
    logits = SESSION.run(["logits"], {name: np.array([rows[name]], np.int64) for name in INPUTS})[0][0]
    scores = 1 / (1 + np.exp(-logits))
    ranked = sorted(zip(LABELS, scores.tolist()), key=lambda pair: -pair[1])
    return JSONResponse([{"label": label, "score": score} for label, score in ranked])


async def ready(_: Request) -> PlainTextResponse:
    """Answers when the model is loaded."""
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/predict", predict, methods=["POST"]), Route("/readyz", ready)])
