"""AudioLDM on a GPU: fine-tuning and generation, as JSON and a table under benchmarks/results/.

python -m benchmarks.gpu_audioldm                   # everything, about 25 minutes on an H100
python -m benchmarks.gpu_audioldm --sizes s --trainings full --modes compile --profile
python -m benchmarks.gpu_audioldm --device cpu --sizes nano --batches 2    # that it runs at all
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.deprecated.audioldm.pipeline_audioldm import AudioLDMPipeline

from benchmarks.audioldm import prompt
from benchmarks.training import TrainingStep, half_precision, seconds_per_call
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.audioldm.checkpoint import build_hifigan
from fsasd.generation.diffusion.adaptation import Full, Lora
from fsasd.generation.diffusion.sampling import Sampler

RESULTS = Path(__file__).parent / "results"
AIMS = {"clips/s": 300, "share of the matrix rate": 0.30, "cached": 2.0, "generation": 10.0}


def main() -> None:
    """Measure what the arguments ask for, and write it down."""
    wanted = arguments()
    device = torch.device(wanted.device)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"CPU {platform.machine()}",
        "torch": torch.__version__,
        "matrix_rate": matrix_rate(device, 8192 if device.type == "cuda" else 512),
        "training": [],
        "generation": [],
    }
    torch.set_float32_matmul_precision("high")
    print(f"{found['device']}: {found['matrix_rate'] / 1e12:.1f} TFLOP/s in bfloat16 products")
    cases = itertools.product(wanted.sizes, wanted.trainings, wanted.modes, wanted.batches)
    for size, training, mode, batch in cases:
        row = train(size, training, mode, batch, device, found["matrix_rate"])
        found["training"].append(row)
        print(row, flush=True)
    for size in wanted.sizes:
        row = caching(size, max(1, min(wanted.batches)), device)
        found["training"].append(row)
        print(row, flush=True)
        row = generation(size, wanted.clips, wanted.seconds, device)
        found["generation"].append(row)
        print(row, flush=True)
    RESULTS.mkdir(exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in found["device"].lower()) or "cpu"
    path = RESULTS / f"audioldm-{name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    path.with_suffix(".md").write_text(table(found))
    print(f"written: {path} and {path.with_suffix('.md').name}")
    if wanted.profile:
        profile(wanted.sizes[0], wanted.trainings[0], wanted.modes[0], wanted.batches[-1], device)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="+", default=["s", "m", "l"])
    parser.add_argument("--trainings", nargs="+", default=["full", "lora"])
    parser.add_argument("--modes", nargs="+", default=["eager", "compile"])
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 32, 64])
    parser.add_argument("--clips", type=int, default=32, help="generated together")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a generated clip")
    parser.add_argument("--profile", action="store_true", help="where a training step's time goes")
    return parser.parse_args()


def matrix_rate(device: torch.device, size: int) -> float:
    """Return the floating-point operations per second of a product of bfloat16 matrices."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds_per_call(lambda: a @ b, device, repeats=10)


def build(size: str, training: str, mode: str, device: torch.device) -> AudioLDM:
    """Build a model with random weights, which cost what trained ones do."""
    module = AudioLDM(
        f"random:{size}",
        train={"full": Full, "lora": Lora}[training](),
        compile_network=mode == "compile",
        channels_last=mode == "compile",
        attention_heads="checkpoint",
    )
    return module.to(device)


def train(
    size: str, training: str, mode: str, batch: int, device: torch.device, rate: float
) -> dict[str, Any]:
    """Measure a training step."""
    case = {"size": size, "training": training, "mode": mode, "batch": batch}
    try:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        step = TrainingStep(build(size, training, mode, device), batch)
        with half_precision(device):
            seconds = seconds_per_call(step, device, repeats=8, warm_up=4)
    except torch.OutOfMemoryError:
        return {**case, "clips_per_second": None, "why": "out of memory"}
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    return {
        **case,
        "seconds": seconds,
        "clips_per_second": batch / seconds,
        "share_of_matrix_rate": step.flops / seconds / rate,
        "peak_gib": memory,
    }


def caching(size: str, batch: int, device: torch.device) -> dict[str, Any]:
    """Compare steps from cached latents with steps that compute them."""
    times = {}
    for cached in (True, False):
        step = TrainingStep(build(size, "full", "eager", device), batch, cached)
        with half_precision(device):
            times[cached] = seconds_per_call(step, device, repeats=5)
        del step
    return {
        "size": size,
        "batch": batch,
        "cached_seconds": times[True],
        "uncached_seconds": times[False],
        "cached_is_faster": times[False] / times[True],
    }


def generation(size: str, clips: int, seconds: float, device: torch.device) -> dict[str, Any]:
    """Compare batches of 25 steps with diffusers' pipeline, a prompt of 200 steps at a time."""
    module = build(size, "full", "eager", device).eval()
    module.sampler = Sampler()
    prompts = [prompt(seed, seconds) for seed in range(clips)]
    parts = module.components
    if size == "nano":
        # The pipeline needs a vocoder of this kind.
        parts.vocoder = build_hifigan(channels=64).eval()
    with half_precision(device):
        ours = seconds_per_call(lambda: module.generate(prompts), device, 2, 1) / clips
        pipeline = AudioLDMPipeline(
            parts.vae, parts.text_encoder, parts.tokenizer, parts.unet, parts.scheduler,
            parts.vocoder,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        theirs = seconds_per_call(
            lambda: pipeline(
                prompts[0].caption,
                audio_length_in_s=seconds,
                num_inference_steps=200,
                guidance_scale=2.5,
            ),
            device,
            repeats=1,
            warm_up=1,
        )
    return {
        "size": size,
        "clips_together": clips,
        "clips_per_second": 1 / ours,
        "pipeline_clips_per_second": 1 / theirs,
        "faster": theirs / ours,
    }


def profile(size: str, training: str, mode: str, batch: int, device: torch.device) -> None:
    """Print where the time of a training step goes."""
    step = TrainingStep(build(size, training, mode, device), batch)
    with half_precision(device):
        for _ in range(3):
            step()
        with torch.profiler.profile() as recorded:
            step()
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(recorded.key_averages().table(sort_by=key, row_limit=20))


def table(found: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = [
        f"# AudioLDM on {found['device']}\n",
        f"torch {found['torch']}; products of bfloat16 matrices: "
        f"{found['matrix_rate'] / 1e12:.0f} TFLOP/s. Clips of 10.24 s, random weights.\n",
        "| size | trained | mode | batch | clips/s | share of matrix rate | peak GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["training"]:
        if "mode" not in row:
            continue
        case = f"| {row['size']} | {row['training']} | {row['mode']} | {row['batch']} |"
        if row["clips_per_second"] is None:
            lines.append(f"{case} {row['why']} | | |")
            continue
        peak = "" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        lines.append(
            f"{case} {row['clips_per_second']:.3g} | {row['share_of_matrix_rate']:.1%} | {peak} |"
        )
    lines += [
        "",
        "| size | step from cached latents | with VAE and CLAP | faster |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['size']} | {row['cached_seconds']:.3g} s | {row['uncached_seconds']:.3g} s | "
        f"{row['cached_is_faster']:.2f} x |"
        for row in found["training"]
        if "cached_is_faster" in row
    ]
    lines += ["", "| size | generated together | clips/s | pipeline, 200 steps | faster |"]
    lines += ["|---|---|---|---|---|"]
    lines += [
        f"| {row['size']} | {row['clips_together']} | {row['clips_per_second']:.3g} | "
        f"{row['pipeline_clips_per_second']:.3g} | {row['faster']:.1f} x |"
        for row in found["generation"]
    ]
    aims = ", ".join(f"{name} {value}" for name, value in AIMS.items())
    return "\n".join([*lines, "", f"Aims on one H200 for S: {aims}.", ""])


if __name__ == "__main__":
    main()
