"""How near do edits of real normal clips stay to them, and how far apart are the two of a pair?

Per strength: real normal clips of a machine are edited with their caption, and with the anomalous
one from the same noise (``generator/sampler=edit``). Distances are RMS differences of log-mels in
dB: of their means over time, and frame by frame. Beside them stand the distance between two real
clips, and that between a clip and its round trip through VAE and vocoder, which edits do not have.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from fsasd.data.captions import caption
from fsasd.data.clips import Clips, FeatureCache
from fsasd.data.log_mel import LogMel
from fsasd.data.metadata import read_clips
from fsasd.data.recording import SAMPLE_RATE, read
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.diffusion.editing import Sources
from fsasd.generation.diffusion.sampling import Sampler
from fsasd.generation.prompts import MAX_SECONDS, Prompt, make_prompts

_LOG_MEL = LogMel.twfr()


def main() -> None:
    """Print a row per strength."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder of a data set in the DCASE layout")
    parser.add_argument("--machine", default="fan")
    parser.add_argument("--clips", type=int, default=8, help="normal training clips")
    parser.add_argument("--checkpoint", default="nano", help="as of generator=audioldm_nano")
    parser.add_argument("--strengths", type=float, nargs="*", default=[0.2, 0.4, 0.7, 1.0])
    args = parser.parse_args()
    clips = Clips(read_clips(args.root, [args.machine]), FeatureCache())
    normal = clips.where(split="train", label="normal")[: args.clips]
    prompts = make_prompts(
        normal, [caption(clip) for clip in normal], len(normal), max_seconds=MAX_SECONDS
    )
    model = AudioLDM(args.checkpoint).eval()
    real = [
        _LOG_MEL(read(Path(str(p.source)))[: round(p.seconds * SAMPLE_RATE)]) for p in prompts[::2]
    ]
    print(f"{args.machine}: {len(normal)} clips; dB of mean log-mels (frame by frame)")
    print(f"two real clips: {_distances(real, [*real[1:], real[0]])}")
    print(f"round trip, real: {_distances(_round_trips(model, prompts[::2]), real)}")
    print(f"{'strength':>9}  {'normal, real':>14}  {'anomaly, real':>14}  {'of a pair':>14}")
    for strength in args.strengths:
        model.sampler = Sampler(strength=strength)
        asked = model.prepare(prompts)
        waveforms = [wave.numpy() for wave in model.generate(asked)]
        mels = [_LOG_MEL(wave / prompt.gain) for wave, prompt in zip(waveforms, asked, strict=True)]
        edits = mels[::2], mels[1::2]
        row = [_distances(edits[0], real), _distances(edits[1], real), _distances(*edits)]
        print(f"{strength:9g}  " + "  ".join(f"{text:>14}" for text in row), flush=True)


def _round_trips(model: AudioLDM, prompts: list[Prompt]) -> list[np.ndarray]:
    vae, vocoder = model.components.vae, model.components.vocoder
    mels = []
    for prompt in prompts:
        samples = round(prompt.seconds * SAMPLE_RATE)
        with torch.no_grad():
            latent = Sources([prompt], model.model, samples).latents[0]
            mel = vae.decode(latent[None] / vae.config.scaling_factor).sample
            waveform = vocoder(mel[:, 0])[0, :samples].numpy()
        mels.append(_LOG_MEL(waveform / prompt.gain))
    return mels


def _distances(some: list[np.ndarray], others: list[np.ndarray]) -> str:
    # (mels, frames) each.
    pairs = list(zip(some, others, strict=True))
    means = np.mean([_rms(a.mean(axis=1) - b.mean(axis=1)) for a, b in pairs])
    frames = np.mean([_rms(a[:, : b.shape[1]] - b[:, : a.shape[1]]) for a, b in pairs])
    return f"{means:.1f} ({frames:.1f})"


def _rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(difference**2)))


if __name__ == "__main__":
    main()
