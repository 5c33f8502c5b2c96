"""The trainer core: one run in one folder, whatever the method.

Everything random in iteration i depends on the seed and i alone, so a run that was cut off and
resumed ends, on a CPU, with the same bits as an unbroken one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from training.batches import Batches, StepStream
from training.checkpoint import load_checkpoint, save_checkpoint, section
from training.datasets import Sample, SkipLog
from training.encoders import encoder_record
from training.episodes import EpisodeSource
from training.learner import Learner, Share
from training.optimization import freeze, load_state, make_optimizer, rate, state_of
from training.processes import Processes
from training.runfolder import CHECKPOINT, RESUME, SKIPPED, claim, refuse_a_run
from training.runlog import Interval, RunLog
from training.settings import RunSettings
from training.tables import differences
from training.validate import fixed_episodes, validation_iou


class TrainingError(ValueError):
    """Training cannot go on; what was saved before is whole."""


class Trainer:
    """Trains a learner.

    Writes ``checkpoint.safetensors`` (the weights to use), ``resume.safetensors`` and
    ``log.jsonl`` into ``folder``.

    Args:
        samples: pictures to train on. watched: pictures for the figure that is watched; in a fold
            they show base classes only.
        provenance: what the checkpoint's header says beside settings and progress.
        extra: what a step takes beside episodes.
    """

    def __init__(
        self,
        folder: Path | str,
        learner: Learner,
        settings: RunSettings[Any],
        samples: Sequence[Sample],
        watched: Sequence[Sample] = (),
        provenance: dict[str, Any] | None = None,
        processes: Processes | None = None,
        workers: int = 1,
        extra: Sequence[Share] = (),
    ) -> None:
        self.folder, self.learner, self.settings = Path(folder), learner, settings
        self.processes = processes or Processes(0, 1, torch.device("cpu"))
        self.watched, self.workers = watched, workers
        self.provenance = provenance or {}
        self.source = EpisodeSource(samples, settings.episodes, learner.auxiliary, learner.classes)
        self.shares = (Share(self.source, settings.trainer.batch), *extra)
        for share in self.shares:
            if share.count % self.processes.count:
                raise ValueError(
                    f"{share.name}: expected a multiple of the {self.processes.count} processes, "
                    f"got {share.count}. Change one of them."
                )
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
            learner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
            "method": self.average.runtime(),
            "encoder": encoder_record(chosen.name, chosen.settings),
            "settings": self.settings.to_json(),
            "iteration": self.iteration,
            "best": self.best,
            **self.provenance,
        }

    def save(self) -> None:
        """Write the weights to use."""
        save_checkpoint(self.folder / CHECKPOINT, self.average.shipped(), self._header())

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

    def step(self, learner: nn.Module, *batch: Tensor) -> float:
        """One iteration on episodes and what else the learner asks for; ``learner`` is the own one,
        or the wrapper that joins processes."""
        own, device = self.settings.trainer, self.processes.device
        torch.manual_seed((own.seed + 1) * 1_000_003 + self.iteration)
        factor = rate(self.settings.schedule, self.iteration, own.iterations)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[own.precision]
        with torch.autocast(device.type, kind, enabled=own.precision != "fp32"):
            loss = learner(*(part.to(device) for part in batch))
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
        return validation_iou(
            self.average,
            self.watched,
            self.settings.episodes.side,
            own.watch,
            self.skips,
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
        stream = StepStream(
            self.shares, own.seed, self.iteration, processes.rank, processes.count, self.skips
        )
        batches = Batches(stream, self.workers)
        self.learner.train()
        if own.iterations == 0 and processes.first:
            self.save()
        interval = Interval()
        bar = tqdm(
            total=own.iterations,
            initial=self.iteration,
            mininterval=5,
            disable=None if processes.first else True,
        )
        while self.iteration < own.iterations:
            with interval.waiting():
                batch = next(batches)
            interval.note(self.step(learner, *batch), self.learner.figures)
            bar.update()
            if self.iteration % own.save_every and self.iteration < own.iterations:
                continue
            if processes.first:
                self._report(bar, interval)
            processes.wait()
            interval = Interval()
        bar.close()

    def _report(self, bar: Any, interval: Interval) -> None:
        row = interval.row(self.iteration, self.settings.trainer.batch)
        if watched := self.watch():
            row["watched"] = watched
        if self.skips is not None:
            row["pictures_skipped"] = len(self.skips)
        better = True
        if self.settings.trainer.select == "best" and watched:
            figure = sum(watched.values()) / len(watched)
            better = self.best is None or figure > self.best
            self.best = figure if better else self.best
        row["kept"] = better
        if better:
            self.save()
        # the state last: a run that is cut off in between does all of this again
        self.log.write(row)
        self.save_state()
        bar.write(self.log.line(row))
