"""The trainer core: one run in one folder, whatever the method.

Everything random in iteration i depends on the seed and i alone, so a run that was cut off and
resumed ends, on a CPU, with the same bits as an unbroken one.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from training.checkpoint import load_checkpoint, save_checkpoint, section
from training.datasets import Sample, SkipLog
from training.encoders import encoder_record
from training.episodes import EpisodeSource, EpisodeStream, whole
from training.optimization import freeze, load_state, make_optimizer, rate, state_of
from training.processes import Processes
from training.runfolder import CHECKPOINT, RESUME, SKIPPED, claim, refuse_a_run
from training.runlog import RunLog
from training.settings import RunSettings, differences
from training.validate import fixed_episodes, validation_iou


class TrainingError(ValueError):
    """Training cannot go on; what was saved before is whole."""


class Trainer:
    """Trains a learner: a module with an ``encoder``, whose ``forward(pixels, masks)`` is a loss.

    Writes ``checkpoint.safetensors`` (the weights to use), ``resume.safetensors`` and
    ``log.jsonl`` into ``folder``.

    Args:
        samples: pictures to train on. watched: pictures for the figure that is watched; in a fold
            they show base classes only.
        provenance: what the checkpoint's header says beside settings and progress.
    """

    def __init__(
        self,
        folder: Path | str,
        learner: Any,
        settings: RunSettings[Any],
        samples: Sequence[Sample],
        watched: Sequence[Sample] = (),
        provenance: dict[str, Any] | None = None,
        processes: Processes | None = None,
        workers: int = 1,
    ) -> None:
        self.folder, self.learner, self.settings = Path(folder), learner, settings
        self.processes = processes or Processes(0, 1, torch.device("cpu"))
        if settings.trainer.batch % self.processes.count:
            raise ValueError(
                f"batch: expected a multiple of the {self.processes.count} processes, got "
                f"{settings.trainer.batch}. Change one of them."
            )
        self.watched, self.workers = watched, workers
        self.provenance = provenance or {}
        self.source = EpisodeSource(samples, settings.episodes)
        asked = settings.data.skip_unreadable
        self.skips = SkipLog(self.folder / SKIPPED) if asked else None
        if settings.trainer.select == "best" and not fixed_episodes(watched, 1):
            raise ValueError(
                "select: 'best' needs pictures to watch, two of one class or more. Take 'last', or "
                "add pictures that are not split train."
            )
        self.iteration = 0
        self.best: float | None = None  # the watched figure of the weights that were kept
        freeze(learner.encoder, settings.encoder.freeze)
        learner.to(self.processes.device)
        if settings.trainer.channels_last:
            learner.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(learner).requires_grad_(False)
        self.optimizer = make_optimizer(learner, settings.optimizer)
        # a factor that keeps float16's small gradients; all else has the range of float32
        self.scaler = torch.amp.GradScaler(
            self.processes.device.type, enabled=settings.trainer.precision == "fp16"
        )
        self.log = RunLog(self.folder, settings.trainer.tensorboard and self.processes.first)
        self._lock: IO[str] | None = None

    # ---- state on disk ----

    def start(self) -> None:
        """Begin in an empty folder.

        Raises:
            ValueError: the folder holds a run.
        """
        refuse_a_run(self.folder)
        self.processes.wait()
        if self.processes.first:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = claim(self.folder) if self.processes.first else None

    def resume(self) -> None:
        """Go on where ``folder`` stands.

        Raises:
            FileNotFoundError: there is nothing to resume.
            ValueError: the run was started with other settings or pictures; says which.
        """
        if not (self.folder / RESUME).exists():
            raise FileNotFoundError(
                f"{self.folder}: expected {RESUME}, got no run to resume. "
                "Begin one without --resume."
            )
        self._lock = claim(self.folder) if self.processes.first else None
        try:
            self._load()
        except (OSError, ValueError):
            self._unlock()
            raise

    def _load(self) -> None:
        tensors, header = load_checkpoint(self.folder / RESUME)
        own = self._header()
        changed = [
            line
            for key in ("settings", *self.provenance)
            for line in differences(header.get(key), own[key], key)
        ]
        if changed:
            raise ValueError(
                f"{self.folder}: was started with other settings or pictures: "
                f"{'; '.join(changed)}. Repeat them, or train in another folder."
            )
        self.iteration, self.best = int(header["iteration"]), header["best"]
        self.learner.load_state_dict(section(tensors, "learner"))
        self.average.load_state_dict(section(tensors, "average"))
        load_state(self.optimizer, self.learner, section(tensors, "optimizer"))
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(header["scaler"])
        if self.processes.first:
            self.log.rewind(self.iteration)

    def _header(self) -> dict[str, Any]:
        chosen = self.settings.encoder
        return {
            "method": self.learner.runtime(),
            "encoder": encoder_record(chosen.name, chosen.settings),
            "settings": self.settings.to_json(),
            "iteration": self.iteration,
            "best": self.best,
            **self.provenance,
        }

    def save(self) -> None:
        """Write the weights to use."""
        save_checkpoint(self.folder / CHECKPOINT, self.average.state_dict(), self._header())

    def save_state(self) -> None:
        """Write what a resumed run needs."""
        header = self._header()
        tensors = {f"learner.{k}": v for k, v in self.learner.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        state = state_of(self.optimizer, self.learner)
        tensors |= {f"optimizer.{k}": v for k, v in state.items()}
        if self.scaler.is_enabled():
            header["scaler"] = self.scaler.state_dict()
        save_checkpoint(self.folder / RESUME, tensors, header)

    # ---- training ----

    def step(self, learner: nn.Module, pixels: Tensor, masks: Tensor) -> float:
        """One iteration; ``learner`` is the own one, or the wrapper that joins processes."""
        own, device = self.settings.trainer, self.processes.device
        torch.manual_seed((own.seed + 1) * 1_000_003 + self.iteration)
        factor = rate(self.settings.schedule, self.iteration, own.iterations)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[own.precision]
        with torch.autocast(device.type, kind, enabled=own.precision != "fp32"):
            loss = learner(pixels.to(device), masks.to(device))
        if not math.isfinite(float(loss.detach())):
            raise TrainingError(
                f"iteration {self.iteration}: the loss is {float(loss.detach())}. Lower "
                "optimizer.learning_rate, or take trainer.precision = 'fp32'; the last saved "
                "state is whole."
            )
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        if self.settings.optimizer.clip:
            nn.utils.clip_grad_norm_(self.learner.parameters(), self.settings.optimizer.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._follow()
        self.iteration += 1
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running average towards the weights."""
        # early on, an average with a long memory would only remember the start
        keep = min(self.settings.trainer.average, (1 + self.iteration) / (10 + self.iteration))
        new = self.learner.state_dict()
        for name, own in self.average.state_dict().items():
            own.lerp_(new[name], 1 - keep) if own.is_floating_point() else own.copy_(new[name])

    def watch(self) -> dict[str, float]:
        """1-shot IoU on the watched pictures, per data set, in percent."""
        own = self.settings.trainer
        if not own.watch or not self.watched:
            return {}
        parts = int(self.average.runtime()["settings"].get("background_parts", 1))
        side = self.settings.episodes.side
        return validation_iou(
            self.average.encoder, self.watched, side, parts, own.watch, self.skips
        )

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def run(self) -> None:
        """Train to the last iteration; log, watch and save every ``save_every``."""
        try:
            self._train()
        finally:
            self._unlock()
            self.log.close()

    def _train(self) -> None:
        own, processes = self.settings.trainer, self.processes
        learner: nn.Module = self.learner
        if processes.count > 1:
            learner = DistributedDataParallel(self.learner, find_unused_parameters=True)
        each = own.batch // processes.count
        stream = EpisodeStream(
            self.source,
            own.seed,
            self.iteration * own.batch + processes.rank,
            processes.count,
            self.skips,
        )
        # batches are made here: a worker's batch would hold every other episode, and a resumed run
        # would then not see what an unbroken one sees
        episodes = iter(torch.utils.data.DataLoader(stream, None, num_workers=self.workers))
        self.learner.train()
        if own.iterations == 0 and processes.first:
            self.save()
        losses: list[float] = []
        began, waited = time.monotonic(), 0.0
        bar = tqdm(
            total=own.iterations,
            initial=self.iteration,
            mininterval=5,
            disable=None if processes.first else True,
        )
        while self.iteration < own.iterations:
            asked = time.monotonic()
            drawn = [whole(next(episodes)) for _ in range(each)]
            waited += time.monotonic() - asked
            pixels, masks = (torch.stack(part) for part in zip(*drawn, strict=True))
            losses.append(self.step(learner, pixels, masks))
            bar.update()
            if self.iteration % own.save_every and self.iteration < own.iterations:
                continue
            if processes.first:
                seconds = time.monotonic() - began
                self._report(bar, losses, len(losses) * own.batch / seconds, waited / seconds)
            processes.wait()
            losses, began, waited = [], time.monotonic(), 0.0
        bar.close()

    def _report(self, bar: Any, losses: list[float], speed: float, waiting: float) -> None:
        row: dict[str, Any] = {
            "iteration": self.iteration,
            "loss": round(sum(losses) / len(losses), 4),
            "episodes_per_second": round(speed, 2),
            "waited_for_data": round(waiting, 3),
        }
        if figures := self.watch():
            row["watched"] = figures
        if self.skips is not None:
            row["pictures_skipped"] = len(self.skips)
        better = True
        if self.settings.trainer.select == "best" and figures:
            figure = sum(figures.values()) / len(figures)
            better = self.best is None or figure > self.best
            self.best = figure if better else self.best
        row["kept"] = better
        if better:
            self.save()
        # the state last: a run that is cut off in between does all of this again
        self.log.write(row)
        self.save_state()
        bar.write(self.log.line(row))
