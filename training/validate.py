"""A quick figure while training: 1-shot IoU of fixed episodes, in torch.

Published figures come from training.evaluate.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.datasets import IGNORE, DataError, Sample, SkipLog
from training.learner import Example, Learner
from training.resize import fit_to

LEAST = 0.005  # of a picture that a class covers, to be watched


def fixed_episodes(
    samples: Sequence[Sample], count: int, least: float = LEAST, seed: int = 0
) -> list[tuple[int, Sample, Sample]]:
    """``(class, support, query)``, the classes in turn, the same for the same seed.

    None, if no class has two pictures.
    """
    classes: dict[tuple[str, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        for identity, fraction in sample.classes.items():
            if fraction >= least:
                classes[sample.dataset, identity].append(sample)
    usable = [(key[1], members) for key, members in sorted(classes.items()) if len(members) >= 2]
    generator = random.Random(seed)
    generator.shuffle(usable)
    episodes = []
    for index in range(count if usable else 0):
        identity, members = usable[index % len(usable)]
        support, query = generator.sample(members, 2)
        episodes.append((identity, support, query))
    return episodes


@torch.no_grad()
def validation_iou(
    learner: Learner,
    samples: Sequence[Sample],
    side: int,
    count: int = 60,
    skips: SkipLog | None = None,
) -> dict[str, float]:
    """Mean over episodes of the foreground IoU at ``side x side``, in percent, per data set.

    Sets in which no class has two pictures are left out, and so are, with ``skips``, episodes
    whose pictures cannot be read.
    """
    learner.eval()
    encoder = learner.encoder
    device = next(encoder.parameters()).device
    mean, std = (torch.tensor(v)[:, None, None] for v in (encoder.mean, encoder.std))
    cache: dict[str, tuple[Tensor, np.ndarray, np.ndarray]] = {}

    def encode(sample: Sample) -> tuple[Tensor, np.ndarray, np.ndarray]:
        if sample.key not in cache:
            pixels, labels = fit_to(*sample.read(), side)
            image = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
            with torch.autocast(device.type, torch.bfloat16):
                features = encoder(((image - mean) / std).to(device))
            cache[sample.key] = features.bfloat16().cpu(), labels, pixels  # half the memory
        kept, labels, pixels = cache[sample.key]
        return kept.float(), labels, pixels

    result = {}
    for name in sorted({s.dataset for s in samples}):
        values = []
        for identity, support, query in fixed_episodes(
            [s for s in samples if s.dataset == name], count
        ):
            try:
                (features, labels, pixels), (asked, truth, _) = encode(support), encode(query)
            except DataError as error:
                if skips is None:
                    raise
                skips.note(error)
                continue
            masks = torch.from_numpy(
                np.stack([(labels != identity) & (labels != IGNORE), labels == identity])
            )
            example = (features, torch.tensor(pixels)[None], masks[None].float())
            shown = Example(*(part.to(device) for part in example))
            found = learner.respond(asked.to(device), shown)
            logits = F.interpolate(found.cpu(), (side, side), mode="bilinear", align_corners=False)
            marked = logits[0].argmax(0).numpy() == 1
            wanted, known = truth == identity, truth != IGNORE
            values.append((marked & wanted).sum() / max(1, ((marked | wanted) & known).sum()))
        if values:
            result[name] = round(100 * float(np.mean(values)), 2)
    learner.train()
    return result
