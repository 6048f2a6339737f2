"""Time one step of fitting adapters around a dictionary against the obvious code.

    python bench/adapt.py            # a vocabulary of 256,000; a minute or two
    python bench/adapt.py --quick    # smaller, seconds
    python bench/adapt.py --processor-time    # beside other work, on one thread

A small random model of Gemma 2's shape with its soft cap, a TopK dictionary after its second block,
LoRA on all blocks. All sides take turns in one run on the same model and the same tokens. The
obvious step is two full forward passes with all logits in float32, `kl_div` and `backward`; ours
is the package's own step; in shared, an earlier fit on the same tokens left the original's final
states. Printed: tokens a second (median over repeats), their ratio to the obvious step's and to
ours, the memory needed at most beyond the model (Linux and GPUs), and how far loss and gradients
lie apart, in the products asked for and once in float32.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, Gemma2Config

from lorascope.activations.tokens import TokenBatch
from lorascope.dictionaries.topk import TopKDictionary
from lorascope.fits.parts import LoraPart
from lorascope.fits.run import Fit, Passes
from lorascope.fits.settings import Learning
from lorascope.outputs.kept import KeptStates
from lorascope.outputs.splicing import Splice, spliced
from lorascope.randomness import generator
from lorascope.training.dictionaries import product_dtype

Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Shape:
    """How much of everything."""

    vocabulary: int
    width: int
    blocks: int
    latents: int
    windows: int
    length: int

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.windows * self.length


FULL = Shape(vocabulary=256_000, width=192, blocks=4, latents=1_536, windows=4, length=128)
QUICK = Shape(vocabulary=16_000, width=32, blocks=2, latents=128, windows=2, length=32)


def model(shape: Shape, device: str) -> PeftModel:
    """The model under an adapter that already does something."""
    config = Gemma2Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=shape.width // 4,
    )
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    # Logits of a few nats instead of the near-zero ones of fresh weights.
    base.get_input_embeddings().weight.data.normal_(std=0.2)
    lora = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = get_peft_model(base.eval().requires_grad_(False), lora)
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data += 0.02 * torch.randn_like(parameter)
    return peft.eval().to(device)


def dictionary(shape: Shape) -> TopKDictionary:
    """Random directions, read and written alike."""
    directions = torch.randn(shape.latents, shape.width, generator=generator(0, "directions"))
    directions /= directions.norm(dim=1, keepdim=True)
    silent = torch.zeros(shape.latents), torch.zeros(shape.width)
    return TopKDictionary(directions.T.clone(), silent[0], directions, silent[1], k=16)


def batch(shape: Shape) -> TokenBatch:
    """Random tokens, all of which count."""
    size = (shape.windows, shape.length)
    ids = torch.randint(shape.vocabulary, size, generator=generator(0, "tokens"))
    real = torch.ones(size, dtype=torch.bool)
    return TokenBatch(ids, real, ~real, ~real, torch.zeros(shape.windows, dtype=torch.long))


def obvious(peft: PeftModel, splice: Splice, given: TokenBatch, products: torch.dtype) -> Step:
    """Two passes with full logits, and PyTorch's divergence."""

    def step() -> Tensor:
        device = peft.device
        ids, low = given.ids.to(device), products != torch.float32
        with torch.autocast(device.type, products, low):
            with torch.no_grad(), splice.off(), peft.disable_adapter():
                original = peft(input_ids=ids, use_cache=False).logits.float()
            changed = peft(input_ids=ids, use_cache=False).logits.float()
        log_o = functional.log_softmax(original, -1).flatten(0, 1)
        log_s = functional.log_softmax(changed, -1).flatten(0, 1)
        loss = functional.kl_div(log_o, log_s, reduction="batchmean", log_target=True)
        loss.backward()
        return loss.detach()

    return step


def ours(peft: PeftModel, splice: Splice, given: TokenBatch, products: torch.dtype) -> Step:
    """The package's step."""
    return _fit(peft, splice, given, products, Passes())


def shared(peft: PeftModel, splice: Splice, given: TokenBatch, products: torch.dtype) -> Step:
    """The package's step where the original's final states are known."""
    return _fit(peft, splice, given, products, Passes(original=KeptStates().of("original")))


def _fit(
    peft: PeftModel, splice: Splice, given: TokenBatch, products: torch.dtype, passes: Passes
) -> Step:
    settings = Learning(products=str(products).removeprefix("torch."))
    parts = [LoraPart(peft, 1e-3)]
    fit = Fit(peft, None, splice, parts, [], [], [], settings, 0, passes=passes)
    return lambda: fit.step([given])["kl"]


def take(
    step: Step, peft: PeftModel, device: str, clock: Callable[[], float]
) -> tuple[float, float, Tensor, Tensor]:
    """Seconds, MiB needed beyond what was there before, loss, and all gradients in one vector."""
    peft.zero_grad(set_to_none=True)
    before = _start_counting(device)
    started = clock()
    loss = step()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = clock() - started
    needed = (_most(device) - before) / 2**20
    gradients = [p.grad.flatten() for p in peft.parameters() if p.grad is not None]
    return seconds, needed, loss, torch.cat(gradients)


def _start_counting(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if platform.system() == "Linux":
        # What earlier steps freed must not be there to be taken again unseen.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    return _resident("VmRSS")


def _most(device: str) -> float:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")


def _resident(field: str) -> float:
    """Bytes of resident memory, now (VmRSS) or at most (VmHWM); nan where it is not told."""
    if platform.system() != "Linux":
        return float("nan")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def compare(
    peft: PeftModel, shape: Shape, splice: Splice, products: torch.dtype, chosen: argparse.Namespace
) -> None:
    """Prints one table."""
    given, device = batch(shape), chosen.device
    clock = time.process_time if chosen.processor_time else time.perf_counter
    ways = (obvious, ours, shared)
    sides = {make.__name__: make(peft, splice, given, products) for make in ways}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    memory = dict.fromkeys(sides, 0.0)
    last: dict[str, tuple[Tensor, Tensor]] = {}
    for repeat in range(chosen.repeats + 1):
        for name, step in sides.items():
            taken, needed, *found = take(step, peft, device, clock)
            last[name] = (found[0], found[1])
            # Workspaces that stay are made in the first turn, which sets much else up too.
            memory[name] = max(memory[name], needed)
            if repeat:
                seconds[name].append(taken)
    rates = {name: shape.tokens / statistics.median(taken) for name, taken in seconds.items()}
    print(f"  {str(products).removeprefix('torch.')} products")
    print(f"  {'':10s} {'tokens/s':>9s} {'ratio':>6s} {'MiB':>7s} {'share':>6s} {'to ours':>7s}")
    for name, rate in rates.items():
        speed, room = rate / rates["obvious"], memory[name] / memory["obvious"]
        beside = f"{speed:6.2f} {memory[name]:7.0f} {room:6.2f} {rate / rates['ours']:7.2f}"
        print(f"  {name:10s} {rate:9,.0f} {beside}")
    (loss, gradient), (expected, wanted) = last["ours"], last["obvious"]
    apart = float((gradient - wanted).norm() / wanted.norm())
    print(
        f"    KL {float(loss):.6f} and {float(expected):.6f} nats/token; gradients apart by "
        f"{apart:.1e} of their norm"
    )
    same = all(torch.equal(a, b) for a, b in zip(last["ours"], last["shared"], strict=True))
    print(f"    shared and ours {'the same' if same else 'not the same'} bit for bit", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smaller shape")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="not wall clock")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    shape, device = QUICK if arguments.quick else FULL, arguments.device
    where = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
    threads = torch.get_num_threads()
    versions = f"lorascope {metadata.version('lorascope')}, torch {torch.__version__}"
    print(f"{versions}, Python {platform.python_version()}, {device} {where}, {threads} threads")
    print(f"{shape}")
    peft = model(shape, device)
    with spliced(peft, {1: dictionary(shape)}) as splice:
        for products in dict.fromkeys([product_dtype("auto", device), torch.float32]):
            compare(peft, shape, splice, products, arguments)


if __name__ == "__main__":
    main()
