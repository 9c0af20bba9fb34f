"""Does the nano model follow its captions, also those that it was not trained on?

Clips are generated from captions of simulated machines, and each is assigned to the nearest of all
combinations of machine, operating state and label: smallest Euclidean distance between the clip's
mean log-mel and the mean over simulated recordings of a combination. The same assignment of
simulated recordings themselves says what can be reached at best: severities vary, and some faults
hardly show in a mean spectrum. Three groups of captions:

- trained on: of reference machines;
- held-out states: those that ``conf/experiment/pretrain_nano.yaml`` holds out, both labels;
- targets: of machines of which it was trained on normal clips alone, as in the first-shot task.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from fsasd.data.captions import default_captions
from fsasd.data.metadata import Clip
from fsasd.data.simulate import MACHINES, simulate
from fsasd.generation.audioldm import AudioLDM
from fsasd.generation.audioldm.mel import normalised_mel
from fsasd.generation.prompts import Prompt

Combination = tuple[str, tuple[tuple[str, str], ...], str]
"""Machine, attributes, label."""


def main() -> None:
    """Print how often a clip is nearest to its own combination, machine, state and label."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="nano")
    parser.add_argument("--clips", type=int, default=16, help="generated clips per caption")
    parser.add_argument("--real", type=int, default=16, help="recordings per combination")
    args = parser.parse_args()
    torch.manual_seed(0)

    factory, held_out = _pretraining()
    references, targets = factory.references, factory.targets
    everything = list(_combinations([*references, *targets]))
    new = [c for c in everything if any(_matches(c, rule) for rule in held_out)]
    known = [c for c in everything if c[0] in references and c not in new]
    groups = {
        "trained on": [c for name in references for c in [k for k in known if k[0] == name][:2]],
        "held-out states": new,
        "targets": [c for c in everything if c[0] in targets],
    }
    centres = np.stack([_recordings(c, args.real, seed=1).mean(axis=0) for c in everything])
    model = AudioLDM(args.checkpoint)
    print(f"{len(everything)} combinations to choose from")
    for group, chosen in groups.items():
        print(f"{group}: {len(chosen)} captions, {args.clips} clips of each", flush=True)
        for name, spectra in {
            "generated": lambda c: _generated(model, c, args.clips),
            "recorded": lambda c: _recordings(c, args.clips, seed=2),
        }.items():
            nearest = [(c, everything[i]) for c in chosen for i in _nearest(spectra(c), centres)]
            print(f"{name:>12}: " + ", ".join(_shares(nearest, everything)), flush=True)


def _pretraining() -> tuple[DictConfig, list[dict[str, str]]]:
    with initialize_config_module("fsasd.conf", version_base="1.3"):
        import fsasd.cli.main  # noqa: F401  (registers the resolvers)

        cfg = compose("config", ["experiment=pretrain_nano"])
    rules = [{key: str(value) for key, value in rule.items()} for rule in cfg.data.hold_out]
    return cfg.data.factory, rules


def _combinations(machines: Iterable[str]) -> Iterator[Combination]:
    for machine in machines:
        keys = list(MACHINES[machine].source)
        for values in itertools.product(*(MACHINES[machine].source[key] for key in keys)):
            for label in ("normal", "anomaly"):
                yield machine, tuple(zip(keys, values, strict=True)), label


def _matches(combination: Combination, rule: dict[str, str]) -> bool:
    machine, attributes, label = combination
    known = {"machine": machine, "label": label, **dict(attributes)}
    return all(known.get(key) == value for key, value in rule.items())


def _recordings(combination: Combination, count: int, seed: int) -> np.ndarray:
    machine, attributes, label = combination
    rngs = np.random.default_rng([seed, *repr(combination).encode()]).spawn(count)
    return np.stack(
        [_spectrum(simulate(machine, dict(attributes), label, rng, 4.0)) for rng in rngs]  # type: ignore[arg-type]
    )


def _generated(model: AudioLDM, combination: Combination, count: int) -> np.ndarray:
    machine, attributes, label = combination
    caption = default_captions()(Clip(Path(), machine, label=label, attributes=dict(attributes)))
    prompts = [
        Prompt(f"{i}.wav", machine, None, None, label, caption, 2.56, 1.0, i) for i in range(count)
    ]
    return np.stack([_spectrum(waveform.numpy()) for waveform in model.generate(prompts)])


def _spectrum(waveform: np.ndarray) -> np.ndarray:
    return normalised_mel(waveform).mean(axis=0)


def _nearest(spectra: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.linalg.norm(spectra[:, None] - centres[None], axis=-1).argmin(axis=1)


def _shares(nearest: list[tuple[Combination, Combination]], everything: list[Combination]):
    views = {
        "caption": lambda c: c,
        "machine": lambda c: c[0],
        "machine and state": lambda c: c[:2],
        "label": lambda c: c[2],
    }
    for name, view in views.items():
        share = np.mean([view(own) == view(found) for own, found in nearest])
        chance = np.mean([[view(own) == view(c) for c in everything] for own, _ in nearest])
        yield f"{name} {share:.0%} (chance {chance:.0%})"


if __name__ == "__main__":
    main()
