"""Triton's HTTP client against a real server: `kserve.py http://127.0.0.1:8080`."""

import sys

import numpy
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

MODEL = "toxic-bilstm"


def main(url: str) -> None:
    client = triton.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    facts = client.get_model_metadata(MODEL)
    (model_input,), (model_output, *_) = facts["inputs"], facts["outputs"]
    assert model_input["datatype"] == "INT32" and model_input["shape"][0] == -1, facts

    ids = numpy.arange(2 * model_input["shape"][1], dtype=numpy.int32).reshape(2, -1) % 900
    answers = []
    for binary in (True, False):
        tensor = triton.InferInput(model_input["name"], list(ids.shape), model_input["datatype"])
        tensor.set_data_from_numpy(ids, binary_data=binary)
        output = triton.InferRequestedOutput(model_output["name"], binary_data=binary)
        result = client.infer(MODEL, [tensor], outputs=[output], request_id="7")
        assert result.get_response()["id"] == "7"
        answers.append(result.as_numpy(model_output["name"]))
    assert answers[0].shape[0] == 2 and numpy.array_equal(*answers), answers
    # A row has the same outputs alone and in a batch.
    tensor = triton.InferInput(model_input["name"], [1, ids.shape[1]], model_input["datatype"])
    tensor.set_data_from_numpy(ids[1:])
    alone = client.infer(MODEL, [tensor]).as_numpy(model_output["name"])
    assert numpy.allclose(alone[0], answers[0][1], atol=1e-4), (alone, answers)

    for name, expected in [("nothing", "unknown model `nothing`"), (MODEL, "expected i32")]:
        tensor = triton.InferInput(model_input["name"], [1, 2], "FP32")
        tensor.set_data_from_numpy(numpy.zeros((1, 2), numpy.float32))
        try:
            client.infer(name, [tensor])
        except InferenceServerException as error:
            assert expected in error.message(), error
        else:
            raise AssertionError(f"`{name}` succeeded, expected an error")
    print("tritonclient: metadata, tensors as JSON and as bytes, two errors")


main(*sys.argv[1:])
