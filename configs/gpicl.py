"""General-purpose in-context learning (arXiv 2212.04458): meta-train a sequence model to learn from examples.

  bash launch/local.sh --config=configs/gpicl.py:digits --workdir=runs/gpicl         1 minute on two cores
  bash launch/local.sh sweep --config=configs/gpicl.py:phases --out=runs/phases      K from 1 to unlimited, 12 minutes
  bash launch/local.sh sweep --config=configs/gpicl.py:models --out=runs/models      every learner, 11 minutes

Other arguments: smoke; mnist and paper, for a GPU, not run; lstm outer_lstm vsml vsml_nosym mlp sgd maml, one learner.

  results/gpicl_digits: unseen 0.850 ± 0.010
  results/gpicl_phases: L(unseen) at unlimited K 0.601
  results/gpicl_models: vsml 0.838 ± 0.010

What was tried and did not help: docs/notes/gpicl.md.
"""

from collections import Counter

from ml_collections import ConfigDict

from configs import common

UNLIMITED = 2**30  # what num_tasks=0 means
TASKS = (*(2**e for e in (0, 3, 5, 6, 7, 8, 9, 10, 12)), 0)  # K of the phase diagram
CONTROLS = ("seen_random_labels", "unseen_random_labels", "seen_relabelled")


def get_config(arg: str = "") -> ConfigDict:
    variants = dict(digits=digits, smoke=smoke, phases=phases, mnist=mnist, paper=paper)
    variants |= {name: lambda name=name: other_learner(name) for name in OTHER_LEARNERS}
    return ConfigDict(common.choose(arg, variants | {"models": digits}, "digits")())


def digits() -> dict:
    """The main job: scikit-learn's 8x8 digits, classes 0-4 for meta-training, 5-9 never used."""
    sets = ("seen", "seen_image", "unseen", "new", "random", "identity", *CONTROLS)
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(),
        task=dict(name="projected", dataset="digits", split_by="class", train_classes=5, heldout_frac=0.22,
                  new_dataset="",
                  image_size=0, channels=0, pca=32, ways=5, length=20, num_tasks=0, bias=0.0, random_points=10,
                  task_seed=0),
        learner=dict(name="incontext", layout="query", dtype="float32",
                     network=dict(name="transformer", depth=2, width=64, num_heads=4, mlp=256, positions=False)),
        optim=common.adam(1e-3, warmup_steps=100),
        train=common.train(batch=64, steps=2000),
        evaluators=dict(curves=dict(name="learning_curves", sets=sets, episodes=1024, chunk=256, seed=1,
                                    baselines=("1nn", "class_mean", "ridge", "online_softmax"))),
    )


def smoke() -> dict:
    """The same in seconds."""
    config = digits()
    config["task"] |= dict(pca=8, length=6)
    config["learner"]["network"] |= dict(depth=1, width=16, num_heads=2, mlp=32)
    config["optim"] |= dict(warmup_steps=1)
    config["train"] |= dict(batch=8, steps=4, steps_per_call=2, log_every=2, save_every=2)
    config["evaluators"]["curves"] |= dict(episodes=32, chunk=16, sets=("seen", "unseen"), baselines=("1nn",))
    return config


def phases() -> dict:
    """One run of the K-sweep: 1,500 updates, evaluated every 250."""
    config = digits()
    config["learner"]["layout"] = "previous_example"
    config["train"] |= dict(steps=1500, save_every=1500, eval_every=250)
    config["evaluators"]["curves"] |= dict(sets=("seen", "unseen", "new", "random"), baselines=("1nn",))
    return config


def mnist() -> dict:
    """One GPU: 14x14 MNIST, the paper's layout, T = 100, 2**25 tasks, biased permutations. Not run."""
    config = digits()
    config["task"] |= dict(dataset="mnist", split_by="dataset", new_dataset="fashion_mnist", train_classes=0,
                           image_size=14,
                           pca=0, ways=10, length=100, num_tasks=2**25, bias=0.9)
    config["learner"] |= dict(layout="shifted", dtype="bfloat16")
    config["learner"]["network"] |= dict(depth=4, width=256, num_heads=8, mlp=1024, positions=True)
    config["optim"] = common.adam(3e-4, warmup_steps=1000, eps=1e-10)
    config["train"] |= dict(batch=512, steps=30_000, log_every=100, save_every=1000, eval_every=5000)
    config["evaluators"]["curves"] |= dict(chunk=64)
    return config


def paper() -> dict:
    """The paper's setting at 32x32x3, 100,000 updates. Not run."""
    config = mnist()
    config["task"] |= dict(image_size=32, channels=3)
    config["train"] |= dict(batch=128, steps=100_000)
    config["optim"] |= dict(eps=1e-8)
    config["evaluators"]["curves"] |= dict(chunk=16)
    return config


OTHER_LEARNERS = {
    "lstm": dict(network=dict(name="lstm", hidden=128)),
    "outer_lstm": dict(network=dict(name="outer_lstm", size=16, num_heads=4)),
    "vsml": dict(network=dict(name="vsml", hidden=16, messages=8, ticks=2)),
    "vsml_nosym": dict(network=dict(name="vsml_nosym", grid=4, hidden=32, messages=8, ticks=2)),
    "mlp": dict(network=dict(name="mlp", width=128)),
    "sgd": dict(meta=False),
    "maml": dict(meta=True),
}


def other_learner(name: str) -> dict:
    config = digits()
    if name in ("sgd", "maml"):
        config["learner"] = dict(name="online", hidden=(), inner_optimiser="adam", inner_lr=1e-2) | OTHER_LEARNERS[name]
        config["train"] |= dict(steps=50 if name == "sgd" else 1000, save_every=1000)
        config["optim"] |= dict(warmup_steps=0)
        return config
    layout = "shifted" if name.startswith("vsml") else "previous_example"
    config["learner"] = dict(name="incontext", layout=layout, dtype="float32") | OTHER_LEARNERS[name]
    if name.startswith("vsml"):
        config["train"] |= dict(batch=16)
    config["evaluators"]["curves"] |= dict(sets=("seen", "unseen", "new", "random"))
    return config


def sweep(arg: str = "phases"):
    """phases: K from 1 to unlimited, side by side, three seeds at each; the layouts at unlimited K. models: every
    learner."""
    common.choose(arg, dict.fromkeys(("phases", "models")), "")
    if arg == "models":
        yield {"_config": "configs/gpicl.py:digits"}
        for name in OTHER_LEARNERS:
            yield {"_config": f"configs/gpicl.py:{name}"}
        return
    for seed in range(3):  # one program each
        vary = {"task.num_tasks": TASKS, "seed": (seed,) * len(TASKS)}
        yield {"replicas.num": len(TASKS), "replicas.at_once": 1, "replicas.vary": vary}
    for layout in ("shifted", "query"):
        yield {"task.num_tasks": 0, "seed": 0, "learner.layout": layout}


def summarise(results, arg: str = "phases") -> dict:
    return models_table(results) if arg == "models" else phase_diagram(results)


def phase_diagram(results) -> dict:
    """The runs of one layout by K: means over seeds, dots per seed, and the course of training."""
    from metalearn.reporting.runs import single

    runs = {}
    for overrides, headline, history in single(results):
        if "learner.layout" not in overrides:
            runs.setdefault(overrides["task.num_tasks"] or UNLIMITED, []).append((headline, history))
    Ks = sorted(runs)
    mean = lambda K, name: sum(h[name] for h, _ in runs[K]) / len(runs[K])
    names = ("seen_first", "seen_last", "learning_seen", "learning_unseen", "learning_newclass", "unseen_last",
             "newclass_last", "random_last", "memorisation")
    headline = {"K": Ks, "seeds": [len(runs[K]) for K in Ks]} | {n: [mean(K, n) for K in Ks] for n in names}
    headline["phase"] = [[h["phase"] for h, _ in runs[K]] for K in Ks]
    general = [sum("general" in h["phase"] for h, _ in runs[K]) / len(runs[K]) for K in Ks]
    headline["K_star"] = next((K for K, share in zip(Ks, general, strict=True) if share >= 0.5), None)
    for overrides, h, _ in results:
        if "learner.layout" in overrides:
            headline[f"unseen_last_layout_{overrides['learner.layout']}"] = h["unseen_last"]

    shown = [min(K, 2**14) for K in Ks]  # unlimited is drawn at the right edge
    lines = (("seen", "learning_seen", "C0"), ("unseen", "learning_unseen", "C1"), ("new", "learning_newclass", "C2"))
    diagram = {"title": "learning (last - first); right edge: unlimited", "x": shown, "xlabel": "meta-training tasks K",
               "ylabel": "accuracy", "xscale": "log", "series": [], "levels": {"threshold": 0.05}}
    for label, name, color in lines:
        diagram["series"].append({"name": label, "y": [mean(K, name) for K in Ks], "color": color})
        for i in range(max(headline["seeds"]) if max(headline["seeds"]) > 1 else 0):  # one run is its own mean
            dots = [runs[K][i][0][name] if i < len(runs[K]) else None for K in Ks]
            diagram["series"].append({"name": f"{label}, single runs", "y": dots, "points": True, "color": color})
    first = diagram | {"title": "memorisation", "levels": {"chance": 0.2}, "series": [
        {"name": "seen, first position", "y": headline["seen_first"], "color": "C3"},
        {"name": "unseen, last positions", "y": headline["unseen_last"], "color": "C1"}]}
    course = [diagram | {
        "title": f"over training, K = {'unlimited' if K == UNLIMITED else K}",
        "x": [line["step"] for line in history], "xlabel": "updates",
        "xscale": "linear", "levels": {"chance": 0.2}, "series": [
            {"name": "seen, first position", "y": [line["seen_first"] for line in history], "color": "C3"},
            {"name": "unseen, last positions", "y": [line["unseen_last"] for line in history], "color": "C1"}]}
        for K, ((_, history), *_) in runs.items() if K in (2**5, 2**8, 2**10, UNLIMITED)]
    for K in runs:
        if K == 2**8:
            headline["transience_steps"] = [line["step"] for line in runs[K][0][1]]
            headline["transience_unseen_last"] = [line["unseen_last"] for line in runs[K][0][1]]
    counted = lambda names: ", ".join(f"{n} x {name}" for name, n in sorted(Counter(names).items()))
    columns = ("K", "seeds", "phase", "seen first", "seen last", "unseen last", "new last", "L(seen)", "L(unseen)")
    keys = ("seen_first", "seen_last", "unseen_last", "newclass_last", "learning_seen", "learning_unseen")
    rows = [["unlimited" if K == UNLIMITED else K, len(runs[K]), counted(h["phase"] for h, _ in runs[K]),
             *(f"{mean(K, n):.3f}" for n in keys)] for K in Ks]
    return {"headline": headline, "curves": [diagram, first, *course],
            "tables": [{"title": "phases by number of meta-training tasks", "columns": columns, "rows": rows}]}


def models_table(results) -> dict:
    rows, headline = [], {}
    for (_, h, _), name in zip(results, ["transformer", *OTHER_LEARNERS], strict=False):
        rows.append([name, h["parameters"], h["state_size"], f"{h['seen_last']:.3f}",
                     f"{h['unseen_last']:.3f} ± {h['unseen_ci95']:.3f}", f"{h['newclass_last']:.3f}",
                     f"{h['random_last']:.3f}", f"{h['unseen_1nn']:.3f}", f"{h['seconds']:.0f}"])
        headline[name] = {k: h[k] for k in ("unseen_last", "unseen_ci95", "newclass_last", "random_last", "parameters",
                                            "state_size", "seconds")}
    columns = ("learner", "parameters", "state", "seen", "unseen", "new classes", "random", "1-NN, unseen", "seconds")
    return {"headline": headline, "tables": [{"title": "accuracy at the last five of 20 positions, 5-way digits",
                                              "columns": columns, "rows": rows}]}
