"""Where numbers go while a run goes on: metrics.jsonl always, TensorBoard when installed, Weights & Biases when asked
for, a progress line.

metrics.jsonl holds no wall-clock time, so two runs with the same bits write the same lines; on resume it is cut to
the restored step.
"""

import hashlib
import importlib.util
import json
import os
import sys
import time
from typing import Any

from metalearn.cli import Failure, flat, plain
from metalearn.runtime import workdir as workdir_lib
from metalearn.validate import require


class Writer:
    """Appends {step, ...numbers} to a work directory's files; `start` is the step that the run goes on from.

    wandb   the run's config, where Weights & Biases is to have the numbers too
    """

    def __init__(self, workdir: str, start: int, total: int, quiet: bool = False, wandb: dict[str, Any] | None = None):
        self.path = os.path.join(workdir, "metrics.jsonl")
        self.history_path = os.path.join(workdir, "eval", "history.jsonl")
        self.last = _cut(self.path, start)  # the step of the last line that is kept
        _cut(self.history_path, start - 1)  # the evaluation at `start` is made again
        self.start, self.total, self.quiet = start, total, quiet
        self.began = self.shown = time.monotonic()
        self.tensorboard = None
        if importlib.util.find_spec("tensorboardX"):
            from tensorboardX import SummaryWriter

            self.tensorboard = SummaryWriter(os.path.join(workdir, "tb"), purge_step=start)
        self.wandb = None if wandb is None else _begin_wandb(workdir, wandb)

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """One line of training numbers, and the progress line."""
        _append(self.path, {"step": step, **numbers})
        self._pass_on(step, numbers, "train")
        self._progress(step, numbers)

    def write_history(self, step: int, numbers: dict[str, float]) -> None:
        """One line of evaluation numbers during training (eval/history.jsonl)."""
        _append(self.history_path, {"step": step, **numbers})
        self._pass_on(step, numbers, "eval")

    def _pass_on(self, step, numbers, group):
        scalars = {f"{group}/{k}": v for k, v in flat(plain(numbers)).items() if isinstance(v, (int, float))}
        if self.tensorboard is not None:
            for name, value in scalars.items():
                self.tensorboard.add_scalar(name, value, step)
        if self.wandb is not None:
            self.wandb.log(scalars, step=step)

    def _progress(self, step: int, numbers: dict[str, float]) -> None:
        if self.quiet:
            return
        now, terminal = time.monotonic(), sys.stderr.isatty()
        done = step >= self.total
        if not done and now - self.shown < (0.2 if terminal else 10):
            return
        self.shown = now
        rate = (step - self.start) / max(now - self.began, 1e-9)
        left = (self.total - step) / max(rate, 1e-9)
        width = 24
        filled = width * step // self.total
        fields = [f"{k} {numbers[k]:.3f}" for k in ("loss", "last", "accuracy") if k in numbers][:2]
        line = (f"[{'#' * filled}{'.' * (width - filled)}] {step}/{self.total}  {rate:.1f} steps/s  "
                + "  ".join(fields) + f"  {int(left // 60)}:{int(left % 60):02d} left")
        end = "\n" if done or not terminal else ""
        sys.stderr.write(("\r\x1b[K" if terminal else "") + line + end)
        sys.stderr.flush()

    def close(self) -> None:
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.wandb is not None:
            self.wandb.finish()


def check_wandb() -> None:
    """ConfigError where Weights & Biases is not installed."""
    require(importlib.util.find_spec("wandb") is not None, "--wandb", "not installed",
            'pip install "metalearn-jax[wandb]" (or: pip install wandb)')


def _begin_wandb(workdir: str, config: dict[str, Any]):
    """The run at Weights & Biases, or in its files where WANDB_MODE=offline: the same whenever this run goes on. Its
    folder is where W&B puts it (./wandb, or under WANDB_DIR); it has links in it, which no work directory may."""
    import wandb

    same = hashlib.sha256(f"{workdir} {json.dumps(config, sort_keys=True)}".encode()).hexdigest()[:16]
    try:
        return wandb.init(project="metalearn", name=os.path.basename(workdir), id=same, resume="allow", config=config)
    except Exception as error:  # whatever network, account and service have to say
        why = " ".join(str(error).split())[:200]
        raise Failure(f"--wandb: no run could be begun ({why}); WANDB_MODE=offline needs no account") from None


def read(path: str) -> list[dict]:
    """The complete lines of a .jsonl file, [] when it is absent; what a crash or a bad disk garbled is left out."""
    if not os.path.exists(path):
        return []
    found = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line) if line.endswith("\n") else None
            except ValueError:
                continue
            if isinstance(entry, dict) and isinstance(entry.get("step"), int):
                found.append(entry)
    return found


def _append(path: str, line: dict) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(plain(line)) + "\n")


def rewrite(path: str, lines: list[dict]) -> None:
    """The file with these lines alone."""
    workdir_lib.write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def _cut(path: str, step: int) -> int:
    """Keeps the lines up to `step`: what a run wrote past its last checkpoint is written again. Returns the last one's
    step, 0 where there is none."""
    kept = [line for line in read(path) if line["step"] <= step]
    if os.path.exists(path):
        rewrite(path, kept)
    return kept[-1]["step"] if kept else 0
