"""The process in which genai.py measures a peer, in an environment that has it.

    python worker.py openvino FOLDER THREADS [PROPERTY=VALUE ...]
    python worker.py onnxruntime FOLDER THREADS

Reads commands from standard input, and answers each with a line of JSON:

    logits TOKEN ...          logits of the token after a prompt
    measure DECODE SIZE ...   tokens per second, after a warm-up: `prefill SIZE` of random prompts
                              with an answer of one token, `decode DECODE` after a prompt of one
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

WARM_UP = 40, 8  # tokens of a prompt, and of its answer
RANDOM_TOKENS = 3, 32_000  # without the special ones


class OpenVino:
    """OpenVINO GenAI's LLMPipeline."""

    def __init__(self, folder: Path, threads: int, properties: dict[str, str]) -> None:
        import openvino
        import openvino_genai

        self.openvino, self.genai, self.folder = openvino, openvino_genai, folder
        self.hints = {"INFERENCE_NUM_THREADS": threads}
        self.hints |= {name: value for name, value in properties.items() if name != "ATTENTION_BACKEND"}
        # Without a tokenizer's model, as all prompts are tokens.
        tokenizer = openvino_genai.Tokenizer(folder)
        if properties.get("ATTENTION_BACKEND") == "PA":
            scheduler = openvino_genai.SchedulerConfig()
            scheduler.enable_prefix_caching = False
            scheduler.max_num_batched_tokens = 4096
            scheduler.cache_size = 1
            properties = properties | {"scheduler_config": scheduler}
        self.pipeline = openvino_genai.LLMPipeline(folder, tokenizer, "CPU", **self.hints | properties)

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Returns the logits of OpenVINO alone: the pipeline returns only those of its choice."""
        compiled = self.openvino.Core().compile_model(self.folder / "openvino_model.xml", "CPU", self.hints)
        request = compiled.create_infer_request()
        ids = np.array([tokens], np.int64)
        inputs = {
            "input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(ids.size)[None],
            "beam_idx": np.zeros(1, np.int32),
        }  # fmt: skip
        return np.array(request.infer(inputs)["logits"][0, -1])

    def run(self, tokens: np.ndarray, answer: int) -> tuple[float, float]:
        """Returns the seconds until the first token of an answer, and those of the others."""
        config = self.genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = answer, True, False
        moments = []

        def note(_: list[int]) -> object:
            moments.append(time.perf_counter())
            return self.genai.StreamingStatus.RUNNING

        class Streamer(self.genai.StreamerBase):
            def write(self, token: list[int]) -> object:
                return note(token)

            def end(self) -> None:
                pass

        began = time.perf_counter()
        result = self.pipeline.generate(self.openvino.Tensor(tokens[None].astype(np.int64)), config, Streamer())
        if len(result.tokens[0]) != answer or len(moments) != answer:
            raise ValueError(f"expected {answer} tokens, found {len(result.tokens[0])} in {len(moments)} parts")
        return moments[0] - began, moments[-1] - moments[0]


class OnnxRuntime:
    """onnxruntime-genai's generator."""

    def __init__(self, folder: Path, threads: int, _: dict[str, str]) -> None:
        import onnxruntime_genai

        self.genai = onnxruntime_genai
        config = onnxruntime_genai.Config(str(folder))
        options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
        config.overlay(json.dumps(options))
        self.model = onnxruntime_genai.Model(config)

    def started(self, tokens: np.ndarray, answer: int) -> object:
        """Returns a generator whose answer ends at its maximum length only."""
        parameters = self.genai.GeneratorParams(self.model)
        length = len(tokens) + answer + 1
        parameters.set_search_options(max_length=length, min_length=length, do_sample=False)
        return self.genai.Generator(self.model, parameters)

    def logits(self, tokens: list[int]) -> np.ndarray:
        """Returns the logits after the prompt."""
        generator = self.started(tokens, 1)
        generator.append_tokens(np.array(tokens, np.int32))
        return np.array(generator.get_logits()).reshape(-1)

    def run(self, tokens: np.ndarray, answer: int) -> tuple[float, float]:
        """Returns the seconds until the first token of an answer, and those of the others."""
        generator = self.started(tokens, answer)
        began = time.perf_counter()
        generator.append_tokens(tokens.astype(np.int32))
        generator.generate_next_token()
        first = time.perf_counter()
        for _ in range(answer - 1):
            generator.generate_next_token()
        return first - began, time.perf_counter() - first


def main() -> None:
    """Runs the commands."""
    kind, folder, threads, *properties = sys.argv[1:]
    peer = {"openvino": OpenVino, "onnxruntime": OnnxRuntime}[kind](
        Path(folder), int(threads), dict(one.split("=", 1) for one in properties)
    )  # fmt: skip
    random = np.random.default_rng(1)

    def prompt(size: int) -> np.ndarray:
        return random.integers(*RANDOM_TOKENS, size)

    for line in sys.stdin:
        match line.split():
            case ["logits", *tokens]:
                answer = peer.logits([int(token) for token in tokens]).astype(float).tolist()
            case ["measure", decode, *sizes]:
                peer.run(prompt(WARM_UP[0]), WARM_UP[1])
                answer = {f"prefill {size}": int(size) / peer.run(prompt(int(size)), 1)[0] for size in sizes}
                answer[f"decode {decode}"] = int(decode) / peer.run(prompt(1), int(decode) + 1)[1]
            case _:
                raise SystemExit(f"expected `logits TOKEN ...` or `measure DECODE SIZE ...`, found `{line.strip()}`")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
