"""Fine-tune a sentence encoder with the moderation heads; write its weights and validation figures.

    python train.py --encoder MINILM_DIR --data DATA_DIR --out OUT_DIR --soft t1.npy t2.npy
    python train.py ... --runs runs.json --workers 7 --seconds 240      # several runs at a time

MINILM_DIR holds config.json, model.safetensors and tokenizer.json of all-MiniLM-L6-v2. DATA_DIR
holds the CSV files that data.py reads. Records go to OUT_DIR/results.jsonl, weights to
OUT_DIR/weights. README.md lists the commands that build what ships.

A run with `layers` first shrinks the encoder to these layers, with `inner` units each, and
teaches it the embeddings of the whole one and the answers of its heads. Otherwise the heads are
first fitted on the frozen encoder. Then both are trained for `epochs`. A batch mixes all sets. A
row trains only the heads that its set labels; a teacher's outputs (--soft), if any, train the
first four heads of every row. The moving average of the weights is evaluated after each epoch,
and at several interpolations with the weights before training (`toward`). The one with the
highest `score` on the validation rows is saved. All randomness is seeded; on one kind of device,
two runs differ only by rounding.

Needs: numpy, safetensors, tokenizers, torch. Uses CUDA if available.
"""

import argparse
import dataclasses
import json
import os
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault(
    "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
)  # cuBLAS is deterministic only with this

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn import functional

import data
from data import HEADS, TAUGHT, Mix
from model import Encoder
from prepared import Device, Prepared, figures

CHUNK = 32  # number of batches that are sorted by length together


@dataclass(frozen=True)
class Config:
    """Settings of one run."""

    name: str = "base"
    seed: int = 0
    epochs: int = 3
    batch: int = 64
    rate: float = 1e-4  # of the last layer; the heads learn `head_factor` times as fast
    head_factor: float = 10.0
    layer_decay: float = 0.9  # a layer's rate, relative to the layer above
    weight_decay: float = 0.01
    dropout: float = 0.1
    warm_up: float = 0.06  # share of the steps
    train_words: bool = False  # if false, the word table is frozen
    average: float = 0.998  # decay of the moving average of the weights
    agreement: float = 0.0  # weight of R-Drop: two passes with different dropout should agree
    noisy: float = 0.15  # share of rows in a noisy variant
    exchanged: float = 0.3  # share of rows with other identity terms
    soft: float = 0.0  # weight of a teacher's outputs for the first four heads, on every row
    teachers: tuple[int, ...] | None = None  # indices of the teachers' files (default: all)
    soft_share: float = 1.0  # factor of the labels' weight for heads with a teacher's output
    toward: tuple[float, ...] = (
        0.5,
        0.7,
        0.85,
    )  # interpolations between the pretrained (0) and the trained weights (1)
    bf16: bool = False
    head_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)
    layers: tuple[int, ...] | None = None  # the layers that are kept (default: all)
    inner: int | None = None  # width that is kept of their feed-forward parts
    recovery: int = 0  # epochs that teach a shrunk encoder the embeddings of the whole one
    recovery_rate: float = 1e-3
    mix: Mix = field(default_factory=Mix)

    @staticmethod
    def read(values: dict) -> "Config":
        values = dict(values)
        mix = Mix(**values.pop("mix", {}))
        for name in ("toward", "head_weights", "teachers", "layers"):
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        return Config(mix=mix, **values)


def batches(lengths: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return one epoch of positions, shuffled, then grouped by length within each chunk.

    An incomplete last batch is dropped.
    """
    order, groups = rng.permutation(len(lengths)), []
    for start in range(0, len(order), size * CHUNK):
        chunk = order[start : start + size * CHUNK]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        part = [chunk[i : i + size] for i in range(0, len(chunk) - size + 1, size)]
        rng.shuffle(part)
        groups += part
    return groups


def fit_heads(
    model: Encoder, embeddings: torch.Tensor, y: torch.Tensor, w: torch.Tensor, steps: int = 400
) -> None:
    """Fit the heads on frozen embeddings: logistic regression by Adam, on all rows at once."""
    weight, bias = model.head.weight, model.head.bias
    total = w.sum(0).clamp(min=1)
    optimiser = torch.optim.Adam([weight, bias], lr=0.3)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 0.3 * (1 - step / steps)
        z = functional.linear(embeddings, weight, bias)
        loss = (w * functional.binary_cross_entropy_with_logits(z, y, reduction="none")).sum(
            0
        ) / total
        loss = loss.sum() + 2e-5 * weight.square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def recover(
    model: Encoder,
    config: Config,
    device: Device,
    rng: np.random.Generator,
    source: np.ndarray,
    words: np.ndarray | None,
) -> None:
    """Shrink the encoder, and teach it what the whole one gives, on all training texts.

    It learns the embeddings and, if the whole one has heads, their answers; from `words` the heads
    of TAUGHT and half of `harassment` of posts: the tweets that label it call few plain insults
    offensive. Harmless texts of our own are no prompt injection. The noisy variant of a row gets
    the targets of the clean one.
    """
    kinds, total = len(data.VARIANTS), len(device.lengths)
    targets = torch.zeros(total, model.config["hidden_size"], device=device.device)
    clean = np.arange(0, total, kinds)
    targets[clean] = device.all(model, "embed", clean, config.bf16)
    targets[clean + 1] = targets[clean]
    for variant in (2, 3):  # without an identity term, these are the clean text
        differs = (device.ids[clean + variant] != device.ids[clean]).any(1).cpu().numpy()
        targets[clean + variant] = targets[clean]
        lines = clean[differs] + variant
        targets[lines] = device.all(model, "embed", lines, config.bf16)
    answers = None
    if model.has_heads:
        with torch.no_grad():
            answers = functional.linear(targets, model.head.weight, model.head.bias).sigmoid()
        answers[:, HEADS.index("prompt-injection")][by_line(source, ["harmless", "requests"])] = 0
        if words is not None:
            taught = torch.from_numpy(np.repeat(words, kinds, 0)).to(device.device)
            answers[:, len(HEADS) :] = taught
            posts = by_line(source, ["hatemoji", "edos"])
            own = answers[posts, HEADS.index("harassment")]
            answers[posts, HEADS.index("harassment")] = (own + taught[posts].max(1).values) / 2
            weights = torch.ones_like(answers[clean])
            labelled = [p.detach()[: len(HEADS)].clone() for p in model.head.parameters()]
            fit_heads(model, targets[clean], answers[clean], weights)
            for parameter, values in zip(model.head.parameters(), labelled):
                parameter.data[: len(HEADS)] = values
    sample = torch.from_numpy(rng.choice(clean, min(1024, len(clean)), replace=False))
    model.eval()
    longest = int(device.lengths[sample.cpu().numpy()].max())
    model.shrink(config.layers, config.inner, *device.batch(sample, longest))
    model.train()
    model.words.requires_grad_(config.train_words)
    trained = [
        p
        for n, p in model.named_parameters()
        if n != "words" and (model.has_heads or not n.startswith("head."))
    ]
    optimiser = torch.optim.AdamW(trained, lr=config.recovery_rate, weight_decay=0.01)
    plan = []
    for _ in range(config.recovery):
        lines = clean + rng.integers(0, kinds, len(clean))
        plan += [lines[group] for group in batches(device.lengths[lines], config.batch, rng)]
    for step, lines in enumerate(plan):
        at = torch.from_numpy(lines).to(device.device)
        ids, mask = device.batch(at, int(device.lengths[lines].max()))
        with torch.autocast(device.device, torch.bfloat16, enabled=config.bf16):
            found = model.embed(ids, mask, 0.0)
        found = found.float()
        loss = (1 - (found * targets[at]).sum(-1)).mean()
        if answers is not None:
            z = functional.linear(found, model.head.weight, model.head.bias)
            loss = loss + functional.binary_cross_entropy_with_logits(z, answers[at])
        warm = max(1, len(plan) // 50)
        for group in optimiser.param_groups:
            group["lr"] = config.recovery_rate * min((step + 1) / warm, 1 - step / len(plan))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        if step % 200 == 0:
            print(f"{config.name}: recovery {step} of {len(plan)}, loss {loss.item():.4f}", flush=True)


def by_line(source: np.ndarray, names: list[str]) -> torch.Tensor:
    """Return the lines of the rows of these sets, as a mask."""
    return torch.from_numpy(np.repeat(np.isin(source, names), len(data.VARIANTS)))


def parameter_groups(model: Encoder, config: Config) -> list[dict]:
    """Return a parameter group for each rate and decay. Biases and norms are not decayed."""
    depth, groups = len(model.layers), {}
    for name, parameter in model.named_parameters():
        if name == "words" and not config.train_words:
            parameter.requires_grad_(False)
            continue
        if name.startswith("head."):
            factor = config.head_factor
        elif name.startswith("layers."):
            factor = config.layer_decay ** (depth - 1 - int(name.split(".")[1]))
        else:
            factor = config.layer_decay**depth
        decay = (
            config.weight_decay
            if parameter.ndim > 1 and name not in ("words", "positions")
            else 0.0
        )
        groups.setdefault((factor, decay), []).append(parameter)
    return [
        {"params": p, "weight_decay": decay, "factor": factor}
        for (factor, decay), p in groups.items()
    ]


def train(
    config: Config,
    prepared: Prepared,
    device: Device,
    folder: Path,
    soft: list[np.ndarray],
    words: np.ndarray | None,
) -> tuple[dict, Encoder]:
    """Train one run. Return its record, and the model with the best weights."""
    begin = time.perf_counter()
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    model = Encoder(folder, len(HEADS + TAUGHT)).to(device.device)
    source = np.array([r.source for r in prepared.train])
    y, w = data.targets(prepared.train, config.mix)
    w *= np.array(config.head_weights, np.float32)
    kinds = len(data.VARIANTS)
    y, w = np.repeat(y[:, None], kinds, 1), np.repeat(w[:, None], kinds, 1)
    if config.soft:
        chosen = [soft[i] for i in config.teachers or range(len(soft))]
        mean_logits = np.mean([a.astype(np.float32) for a in chosen], 0)
        asked = len(mean_logits)  # the teachers were not asked about the requests, the last rows
        unasked = np.full((len(prepared.train) - asked, *mean_logits.shape[1:]), -6, np.float32)
        mean_logits = np.concatenate([mean_logits, unasked])
        # Cross-entropy is linear in the target, so labels and teacher outputs are combined
        # in one weighted target.
        answers = 1 / (
            1 + np.exp(-mean_logits[:, [0, 0, 1, 2]])
        )  # the noisy variant has the output of the clean one
        share, count = (
            config.soft_share * w,
            np.full_like(w, config.soft) * np.array([1, 1, 1, 1, 0], np.float32),
        )
        share[..., 4] = w[..., 4]
        y = (share * y + count * answers) / np.maximum(share + count, 1e-9)
        w = share + count
    y, w = (np.pad(a.reshape(-1, len(HEADS)), ((0, 0), (0, len(TAUGHT)))) for a in (y, w))
    y, w = (torch.from_numpy(a).to(device.device) for a in (y, w))

    if config.layers:
        recover(model, config, device, rng, source, words)
    counted = np.arange(len(prepared.train)) * kinds
    if not model.has_heads:
        frozen = device.all(model, "embed", counted, config.bf16)
        fit_heads(model, frozen, y[::kinds], w[::kinds])
        del frozen
    record = {"name": config.name, "config": dataclasses.asdict(config), "points": {}}
    best, kept = -1.0, None

    def look(point: str) -> None:
        nonlocal best, kept
        found = figures(prepared, device.all(model, "logits", bf16=config.bf16).cpu().numpy())
        record["points"][point] = found
        print(f"{config.name}, {point}: {json.dumps(found)}", flush=True)
        if found["score"] > best or kept is None:
            best, kept = (
                found["score"],
                {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad},
            )
            record["best"], record["dev"] = point, found

    groups = parameter_groups(model, config)
    look("frozen")
    trained = [p for group in groups for p in group["params"]]
    start = [p.detach().clone() for p in trained]
    mean = [p.detach().clone() for p in trained]
    optimiser = torch.optim.AdamW(groups, lr=config.rate, betas=(0.9, 0.98), fused=True)

    shares = {
        "davidson": config.mix.share_davidson,
        "edos": config.mix.share_edos,
        "slabs": config.mix.share_slabs,
    }

    def epoch_rows() -> np.ndarray:
        parts = []
        for name in dict.fromkeys(source.tolist()):
            rows = np.flatnonzero(source == name)
            if name in ("harmless", "requests") and not getattr(config.mix, name):
                continue
            if name == "hatemoji":
                rows = np.tile(rows, config.mix.repeat_hatemoji)
            elif shares.get(name, 1.0) < 1:
                rows = rng.choice(rows, int(shares[name] * len(rows)), replace=False)
            parts.append(rows)
        rows = np.concatenate(parts)
        draw = rng.random(len(rows))
        variant = np.where(
            draw < config.noisy,
            1,
            np.where(draw < config.noisy + config.exchanged, rng.integers(2, 4, len(rows)), 0),
        )
        return rows * kinds + variant

    size = min(config.batch, len(prepared.train) // 2)
    plan = []
    for _ in range(config.epochs):
        lines = epoch_rows()
        plan.append([lines[group] for group in batches(prepared.lengths[lines], size, rng)])
    total, step = sum(map(len, plan)), 0
    losses = torch.zeros((), device=device.device)
    for epoch, groups_of_rows in enumerate(plan, 1):
        order = torch.from_numpy(np.stack(groups_of_rows)).to(device.device)
        model.train()
        for number, lines in enumerate(groups_of_rows):
            at = order[number]
            ids, mask = device.batch(at, int(prepared.lengths[lines].max()))
            if config.agreement:
                ids, mask = torch.cat([ids, ids]), torch.cat([mask, mask])
            with torch.autocast(device.device, torch.bfloat16, enabled=config.bf16):
                z = model(ids, mask, config.dropout).float()
            target, weight = y[at], w[at]
            if config.agreement:
                first, second = z.chunk(2)
                target, weight = torch.cat([target, target]), torch.cat([weight, weight])
                apart = (first.sigmoid() - second.sigmoid()) * (
                    first - second
                )  # symmetric KL divergence
            loss = (
                weight * functional.binary_cross_entropy_with_logits(z, target, reduction="none")
            ).sum() / len(z)
            if config.agreement:
                loss = loss + config.agreement * apart.sum() / len(z)
            step += 1
            warm = max(1, int(config.warm_up * total))
            rate = config.rate * min(step / warm, (total - step + 1) / max(1, total - warm))
            for group in optimiser.param_groups:
                group["lr"] = rate * group["factor"]
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0, foreach=True)
            optimiser.step()
            torch._foreach_lerp_(
                mean, [p.detach() for p in trained], 1 - min(config.average, step / (step + 10))
            )
            losses += loss.detach()
        raw = [p.detach().clone() for p in trained]
        _set(trained, mean)
        look(f"epoch {epoch}")
        if epoch == config.epochs:
            for share in config.toward:
                _set(trained, [a + share * (b - a) for a, b in zip(start, mean)], but=model.head)
                look(f"epoch {epoch}, {share} of the way")
        _set(trained, raw)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in kept:
                parameter.copy_(kept[name])
    record |= {
        "steps": total,
        "mean_loss": round(float(losses) / max(1, total), 5),
        "seconds": round(time.perf_counter() - begin, 1),
    }
    return record, model


@torch.no_grad()
def _set(parameters: list, values: list, but: torch.nn.Module | None = None) -> None:
    skip = {id(p) for p in but.parameters()} if but else set()
    for parameter, value in zip(parameters, values):
        if id(parameter) not in skip:
            parameter.copy_(value)


def save(model: Encoder, folder: Path, name: str, words: bool) -> None:
    """Write the weights, rounded to f16, as name.safetensors.

    The word table is left out if it was not trained.
    """
    tensors = {n: t.astype(np.float16) for n, t in model.tensors().items()}
    if not words:
        del tensors["embeddings.word_embeddings.weight"]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(folder / f"{name}.safetensors"))


def teacher_answers(model: Encoder, prepared: Prepared, device: Device, bf16: bool) -> np.ndarray:
    """Return logits of the training rows, f16 (rows, 3, heads).

    The rows are unchanged, and with other identity terms twice.
    """
    kinds = len(data.VARIANTS)
    lines = np.arange(len(prepared.train))[:, None] * kinds + np.array([0, 2, 3])
    logits = device.all(model, "logits", lines.ravel(), bf16)
    return logits.cpu().numpy().reshape(len(lines), 3, -1).astype(np.float16)


def work(
    queue,
    prepared: Prepared,
    arguments: argparse.Namespace,
    soft: list[np.ndarray],
    words: np.ndarray | None,
    until: float,
    lock,
) -> None:
    """Train runs of the queue until it is empty or the time is up.

    Appends each record to results.jsonl.
    """
    # The parent does not initialise CUDA, because forked processes could not use it afterwards.
    where = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    device, epoch_seconds = Device(prepared, where), 0.0
    while True:
        with lock:
            if (
                not queue
                or time.time() + epoch_seconds * queue[0].get("epochs", Config.epochs) > until
            ):
                return
            values = queue.pop(0)
        values = dict(values)
        folder = Path(values.pop("encoder", arguments.encoder))
        teach = values.pop("teach", False)
        config = Config.read(values)
        try:
            record, model = train(config, prepared, device, folder, soft, words)
            save(model, arguments.out / "weights", config.name, config.train_words)
            if teach:
                np.save(
                    arguments.out / f"answers-{config.name}.npy",
                    teacher_answers(model, prepared, device, config.bf16),
                )
            del model
        except Exception:  # a failed run must not end the others
            record = {"name": config.name, "error": traceback.format_exc()}
        epoch_seconds = max(epoch_seconds, record.get("seconds", 0) / max(1, config.epochs))
        with lock, open(arguments.out / "results.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        dev = record.get("dev", {})
        outcome = (
            record.get("error") or f"{record['best']}, {json.dumps(dev)}, {record['seconds']} s"
        )
        print(f"{config.name}: {outcome}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--encoder", type=Path, required=True, help="folder of the pretrained encoder"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the CSV files")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path(__file__).with_name("shipped.json"),
        help="JSON: a list of configurations",
    )
    parser.add_argument(
        "--soft",
        type=Path,
        nargs="*",
        default=[],
        help="a teacher's answers (.npy); several are averaged",
    )
    parser.add_argument("--words", type=Path, help="toxic-bilstm's answers to the rows (words.py)")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=2, help="threads of a worker")
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="start no run that would end later than this"
    )
    parser.add_argument("--limit", type=int, help="at most this many rows, to try the script")
    arguments = parser.parse_args()
    until = time.time() + arguments.seconds
    arguments.out.mkdir(parents=True, exist_ok=True)
    prepared = Prepared(arguments.data, arguments.encoder / "tokenizer.json", arguments.limit)
    print(
        f"{len(prepared.train)} training rows, {len(prepared.dev)} validation rows; "
        f"left out as near-twins: {prepared.dropped}",
        flush=True,
    )
    soft = [np.load(f) for f in arguments.soft]
    words = np.load(arguments.words) if arguments.words else None
    runs = json.loads(arguments.runs.read_text())
    if arguments.workers == 1:
        import threading

        work(runs, prepared, arguments, soft, words, until, threading.Lock())
        return
    context = torch.multiprocessing.get_context("fork")
    with context.Manager() as manager:
        queue, lock = manager.list(runs), manager.Lock()
        workers = [
            context.Process(target=work, args=(queue, prepared, arguments, soft, words, until, lock))
            for _ in range(arguments.workers)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main()
