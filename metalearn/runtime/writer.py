"""Where numbers go while a run goes on: metrics.jsonl always, TensorBoard when installed, a progress line.

metrics.jsonl holds no wall-clock time, so two runs with the same bits write the same lines; on resume it is cut to
the restored step.
"""

import importlib.util
import json
import os
import sys
import time

from metalearn.cli import flat, plain
from metalearn.runtime import workdir as workdir_lib


class Writer:
    """Appends {step, ...numbers} to a work directory's files; `start` is the step that the run goes on from."""

    def __init__(self, workdir: str, start: int, total: int, quiet: bool = False):
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

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """One line of training numbers, and the progress line."""
        _append(self.path, {"step": step, **numbers})
        self._to_tensorboard(step, numbers, "train")
        self._progress(step, numbers)

    def write_history(self, step: int, numbers: dict[str, float]) -> None:
        """One line of evaluation numbers during training (eval/history.jsonl)."""
        _append(self.history_path, {"step": step, **numbers})
        self._to_tensorboard(step, numbers, "eval")

    def _to_tensorboard(self, step, numbers, group):
        if self.tensorboard is not None:
            for name, value in flat(plain(numbers)).items():
                if isinstance(value, (int, float)):
                    self.tensorboard.add_scalar(f"{group}/{name}", value, step)

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
