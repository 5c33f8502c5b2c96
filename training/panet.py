"""PANet-style episodic training: prototypes of one picture must segment the other, both ways.

Wang et al., ICCV 2019. Both directions use the true masks (the paper's alignment regularisation
uses the predicted mask of the query for the way back); any encoder of training/encoders, any
folders of training/datasets.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from training.checkpoint import load_checkpoint, save_checkpoint
from training.datasets import IGNORE, Sample
from training.encoders import build_encoder, load_backbone
from training.episodes import EpisodeSettings, EpisodeSource, EpisodeStream
from training.losses import segmentation_loss
from training.prototypes import background_parts, grid_weights, panet_logits, pool
from training.validate import validation_iou


@dataclass(frozen=True)
class PanetSettings:
    """Everything that a run depends on; stored in its checkpoints."""

    encoder: str = "vit_tiny_detail"
    iterations: int = 4000
    pairs: int = 2
    learning_rate: float = 1e-3
    backbone_learning_rate: float = 5e-5
    weight_decay: float = 1e-4
    warmup: int = 100
    frozen_blocks: int = 6
    average: float = 0.998
    scale: float = 20.0
    background_parts: int = 1
    dice_weight: float = 0.5
    bfloat16: bool = True
    seed: int = 0
    save_every: int = 500
    episodes: EpisodeSettings = field(default_factory=EpisodeSettings)

    def __post_init__(self) -> None:
        for name in ("iterations", "pairs", "learning_rate", "save_every", "background_parts"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.average < 1:
            raise ValueError(f"average must be in [0, 1), got {self.average}")


def episode_loss(
    encoder: nn.Module, pixels: Tensor, masks: Tensor, settings: PanetSettings
) -> Tensor:
    """Loss of ``pixels [B, 2, S, S, 3] uint8`` and ``masks [B, 2, S, S] uint8`` (0, ways, 255):
    the first picture segments the second, and back."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (encoder.mean, encoder.std))
    images = (pixels.flatten(0, 1).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
        features = encoder(images)
    features = features.float()
    flat = masks.flatten(0, 1)
    ways = max(1, int(flat[flat != IGNORE].max()))
    height, width = features.shape[-2:]
    weights = torch.stack(
        [grid_weights((flat == way).float(), (height, width)) for way in range(ways + 1)], 1
    )
    # the first picture's prototypes meet the second picture's features, and the other way round
    other = torch.arange(len(flat)) ^ 1
    scene = background_parts(features, weights[:, 0], settings.background_parts)[other]
    prototypes = pool(features, weights[:, 1:])[other]
    known = (weights.sum((-2, -1)) > 0)[other]
    logits = panet_logits(features, scene, prototypes, settings.scale)
    return segmentation_loss(logits, flat, known, settings.dice_weight)


def parameter_groups(encoder: Any, settings: PanetSettings) -> list[dict[str, Any]]:
    """Freeze what stays, and give the pretrained part its own learning rate."""
    backbone = getattr(encoder, "vit", encoder)
    if hasattr(backbone, "blocks"):
        embedding = (backbone.cls_token, backbone.pos_embed, *backbone.patch_embed.parameters())
        for parameter in embedding:
            parameter.requires_grad_(settings.frozen_blocks == 0)
        for block in backbone.blocks[: settings.frozen_blocks]:
            block.requires_grad_(False)
    pretrained = {id(p) for p in backbone.parameters()}
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            groups[id(parameter) in pretrained].append(parameter)
    rates = {True: settings.backbone_learning_rate, False: settings.learning_rate}
    return [{"params": p, "lr": rates[k], "base": rates[k]} for k, p in groups.items() if p]


class PanetRun:
    """One run in one folder.

    Writes ``checkpoint.safetensors`` (averaged weights), ``resume.safetensors`` and ``log.jsonl``.
    """

    def __init__(
        self,
        folder: Path | str,
        samples: Sequence[Sample],
        settings: PanetSettings,
        initial: Path | str | None = None,
        validation: Sequence[Sample] = (),
        resume: bool = False,
        workers: int = 1,
    ) -> None:
        self.folder, self.settings = Path(folder), settings
        self.validation, self.workers = validation, workers
        self.initial = None if initial is None else Path(initial).name
        self.sources = sorted({(s.dataset, s.licence or "no licence stated") for s in samples})
        self.counts = {name: sum(s.dataset == name for s in samples) for name, _ in self.sources}
        self.source = EpisodeSource(samples, settings.episodes)
        torch.manual_seed(settings.seed)
        self.encoder = build_encoder(settings.encoder)
        if initial is not None:
            load_backbone(self.encoder, load_file(str(initial)))
        self.iteration = 0
        resumed: dict[str, Tensor] = {}
        if resume:
            resumed, header = load_checkpoint(self.folder / "resume.safetensors")
            own = {"settings": asdict(settings), "sources": self.sources, "pictures": self.counts}
            for key, value in json.loads(json.dumps(own)).items():
                if header[key] != value:
                    raise ValueError(
                        f"{self.folder}: was started with other {key}: {header[key]}. "
                        "Repeat them, or train in another folder."
                    )
            self.iteration, self.initial = int(header["iteration"]), header["initial"]
            self.encoder.load_state_dict(_section(resumed, "encoder"))
        elif (self.folder / "checkpoint.safetensors").exists():
            raise ValueError(f"{self.folder}: holds a run. Resume it, or train in another folder.")
        elif hasattr(self.encoder, "start_from_keys"):
            self.encoder.start_from_keys(self._some_images(24))
        self.average = copy.deepcopy(self.encoder).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.encoder, settings), weight_decay=settings.weight_decay
        )
        if resume:
            self.average.load_state_dict(_section(resumed, "average"))
            self._load_optimizer(resumed)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _some_images(self, count: int) -> Tensor:
        stream = iter(EpisodeStream(self.source, self.settings.seed + 1))
        pixels = torch.cat([next(stream)[0] for _ in range(count // 2)])
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.encoder.mean, self.encoder.std))
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def _named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.encoder.named_parameters() if p.requires_grad]

    def _load_optimizer(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self._named_parameters():
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.iteration)),
                "exp_avg": tensors[f"first.{name}"],
                "exp_avg_sq": tensors[f"second.{name}"],
            }

    def save(self) -> None:
        """Write the averaged weights for export and evaluation, and what a resumed run needs."""
        method = {"scale": self.settings.scale, "background_parts": self.settings.background_parts}
        header = {
            "method": {"name": "panet", "settings": method},
            "settings": asdict(self.settings),
            "iteration": self.iteration,
            "initial": self.initial,
            "sources": self.sources,
            "pictures": self.counts,
        }
        save_checkpoint(self.folder / "checkpoint.safetensors", self.average.state_dict(), header)
        tensors = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for name, parameter in self._named_parameters():
            tensors[f"first.{name}"] = self.optimizer.state[parameter]["exp_avg"]
            tensors[f"second.{name}"] = self.optimizer.state[parameter]["exp_avg_sq"]
        save_checkpoint(self.folder / "resume.safetensors", tensors, header)

    def rate(self) -> float:
        """Factor on the learning rates: linear warm-up, then a cosine down to a fiftieth."""
        warmup = self.settings.warmup
        if self.iteration < warmup:
            return (self.iteration + 1) / warmup
        done = (self.iteration - warmup) / max(1, self.settings.iterations - warmup)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def step(self, pixels: Tensor, masks: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * self.rate()
        loss = episode_loss(self.encoder, pixels, masks, self.settings)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimizer.step()
        # early on, an average with a long memory would only remember the start
        keep = min(self.settings.average, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            new = self.encoder.state_dict()
            for name, own in self.average.state_dict().items():
                own.lerp_(new[name], 1 - keep) if own.is_floating_point() else own.copy_(new[name])
        self.iteration += 1
        return float(loss.detach())

    def run(self) -> None:
        """Train to the last iteration, logging and saving every ``save_every``."""
        stream = EpisodeStream(
            self.source, self.settings.seed, start=self.iteration * self.settings.pairs
        )
        # batches are made here: a worker's batch would hold every other episode, and a resumed run
        # would then not see what an unbroken one sees
        loader = torch.utils.data.DataLoader(stream, None, num_workers=self.workers)
        episodes = iter(loader)
        self.encoder.train()
        losses: list[float] = []
        began = time.monotonic()
        bar = tqdm(total=self.settings.iterations, initial=self.iteration, mininterval=5)
        while self.iteration < self.settings.iterations:
            drawn = [next(episodes) for _ in range(self.settings.pairs)]
            pixels, masks = (torch.stack(part) for part in zip(*drawn, strict=True))
            losses.append(self.step(pixels, masks))
            bar.update()
            due = self.iteration % self.settings.save_every == 0
            if not due and self.iteration < self.settings.iterations:
                continue
            self.save()
            row: dict[str, Any] = {
                "iteration": self.iteration,
                "loss": round(sum(losses) / len(losses), 4),
                "seconds": round(time.monotonic() - began, 1),
            }
            if self.validation:
                row["validation"] = validation_iou(
                    self.average,
                    self.validation,
                    self.settings.episodes.side,
                    self.settings.background_parts,
                )
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            bar.write(json.dumps(row))
            losses = []
        bar.close()


def _section(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}
