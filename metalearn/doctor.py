"""Say what this machine has: versions, devices, caches, data found and missing.

  metalearn doctor                   for yourself, and for the one whom you ask for help
"""

import os
import sys

import jax

from metalearn import cli, lookup
from metalearn.datasets import preparing
from metalearn.datasets.catalogue import data_root, entries, prepared_root
from metalearn.runtime import manifest


def report() -> dict[str, dict[str, str]]:
    """{section: {name: what there is of it}}."""
    jax_cache = getattr(jax.config, "jax_compilation_cache_dir", "")
    place = lambda path: "not set" if not path else path if os.path.isdir(path) else f"{path} (not there)"
    state = {"ready": "prepared", "raw": "raw files", "missing": "not here", "broken": "BROKEN"}
    checks = [preparing.check(name, full=False) for name in entries()]
    return {
        "versions": manifest.versions() | {"interpreter": sys.executable},
        "devices": {str(d.id): f"{d.device_kind} ({d.platform})" for d in jax.devices()},
        "places": {"METALEARN_DATA": place(data_root()), "prepared sets": place(prepared_root()),
                   "compiled programs": jax_cache or "not kept (METALEARN_COMPILED=off)",
                   "built-in configs": place(lookup.CONFIGS)},
        "data": {c["name"]: " ".join([state[c["state"]], c["where"], *c["problems"]]).strip() for c in checks},
    }


def main() -> int:
    cli.Parser(__doc__, prog="metalearn doctor").parse()
    for section, lines in report().items():
        print("\n".join([section, *(cli.entry(*line) for line in lines.items()), ""]))
    print("what is not here: metalearn datasets check NAME says how to get it")
    return 0


if __name__ == "__main__":
    cli.main(main)
