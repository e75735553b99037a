"""Triton's HTTP client against a real server: `kserve.py http://127.0.0.1:8080`."""

import json
import sys

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

MODEL = "nsfw"
TEXT_MODEL = "toxic-bilstm"


def main(url: str) -> None:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    facts = client.get_model_metadata(MODEL)
    (model_input,), (model_output, *_) = facts["inputs"], facts["outputs"]
    assert model_input["datatype"] == "FP32" and model_input["shape"] == [-1, 3, 224, 224], facts

    pixels = numpy.random.default_rng(1).random((2, 3, 224, 224), numpy.float32)
    answers = []
    for binary in (True, False):
        tensor = triton.InferInput(model_input["name"], list(pixels.shape), model_input["datatype"])
        tensor.set_data_from_numpy(pixels, binary_data=binary)
        output = triton.InferRequestedOutput(model_output["name"], binary_data=binary)
        result = client.infer(MODEL, [tensor], outputs=[output], request_id="7")
        assert result.get_response()["id"] == "7"
        answers.append(result.as_numpy(model_output["name"]))
    assert answers[0].shape[0] == 2 and numpy.allclose(*answers, atol=1e-6), answers
    # A row has the same outputs alone and in a batch.
    tensor = triton.InferInput(model_input["name"], [1, 3, 224, 224], model_input["datatype"])
    tensor.set_data_from_numpy(pixels[1:])
    alone = client.infer(MODEL, [tensor]).as_numpy(model_output["name"])
    assert numpy.allclose(alone[0], answers[0][1], atol=1e-4), (alone, answers)

    for name, expected in [("nothing", "unknown model `nothing`"), (MODEL, "expected f32")]:
        tensor = triton.InferInput(model_input["name"], [1, 2], "INT32")
        tensor.set_data_from_numpy(numpy.zeros((1, 2), numpy.int32))
        try:
            client.infer(name, [tensor])
        except InferenceServerException as error:
            assert expected in error.message(), error
        else:
            raise AssertionError(f"`{name}` succeeded, expected an error")
    texts(client)
    print("tritonclient: metadata, tensors as JSON and as bytes, texts, two errors")


def texts(client: triton.InferenceServerClient) -> None:
    facts = client.get_model_metadata(TEXT_MODEL)
    assert facts["inputs"] == [{"name": "texts", "datatype": "BYTES", "shape": [-1]}], facts
    posts = numpy.array(["you are an idiot", "thank you"], dtype=object)
    answers = []
    for binary in (True, False):
        tensor = triton.InferInput("texts", [2], "BYTES")
        tensor.set_data_from_numpy(posts, binary_data=binary)
        output = triton.InferRequestedOutput("scores", binary_data=binary)
        metadata = triton.InferRequestedOutput("metadata", binary_data=binary)
        result = client.infer(TEXT_MODEL, [tensor], outputs=[output, metadata])
        answers.append(result.as_numpy("scores"))
        assert json.loads(result.as_numpy("metadata")[0])["tokens"] == [4, 2]
    assert answers[0].shape == (2, 6) and numpy.allclose(*answers, atol=1e-6), answers
    assert answers[0][0, 0] > 0.9 > 0.1 > answers[0][1, 0], answers


main(*sys.argv[1:])
