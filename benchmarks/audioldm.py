"""AudioLDM on CPU cores: nano's training steps, S's steps with and without caching, generation."""

from __future__ import annotations

import torch

from benchmarks.training import TrainingStep, seconds_per_call
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.prompts import Prompt

CPU = torch.device("cpu")


def main() -> None:
    """Print all three."""
    nano = TrainingStep(
        AudioLDM("nano", crop_seconds=2.56, attention_heads="checkpoint"), batch_size=16
    )
    seconds = seconds_per_call(nano, CPU, repeats=8)
    print(f"nano, 16 crops of 2.56 s: {seconds:.2f} s a step, {16 / seconds:.0f} clips/s")
    for crop, name in ((2.56, "2.56 s"), (10.24, "10.24 s")):
        times = {}
        for cached in (True, False):
            module = AudioLDM("random:s", crop_seconds=crop, attention_heads="checkpoint")
            step = TrainingStep(module, batch_size=1, cached=cached)
            times[cached] = seconds_per_call(step, CPU, repeats=2, warm_up=1)
            del step, module
        print(
            f"S, one clip of {name}: {times[True]:.1f} s a step from cached latents, "
            f"{times[False]:.1f} s with VAE and CLAP in each step "
            f"({times[False] / times[True]:.1f} x)"
        )
    model = AudioLDM("nano").eval()
    prompts = [prompt(seed, 10.0) for seed in range(8)]
    seconds = seconds_per_call(lambda: model.generate(prompts), CPU, repeats=2, warm_up=1)
    print(f"nano, 8 clips of 10 s in 25 steps with Griffin-Lim: {seconds / 8:.2f} s a clip")


def prompt(seed: int, seconds: float) -> Prompt:
    """Return a prompt for a clip that nobody will listen to."""
    text = "This is the normal sound of a fan."
    return Prompt(f"{seed}.wav", "fan", None, None, "normal", text, seconds, 1.0, seed)


if __name__ == "__main__":
    main()
