"""Memory networks with synthetic gradients: a reconstruction of "Fast & Slow Learning: Incorporating Synthetic
Gradients in Neural Memory Controllers" (arXiv 2011.05438) from its abstract and sources. No number is that paper's.

  bash launch/local.sh sweep --config=configs/memnet.py:gated_recall --out=runs/gated_recall    five arms, 3 lengths
  bash launch/local.sh sweep --config=configs/memnet.py:shared --out=runs/shared     one feedback model for several
  bash launch/local.sh sweep --config=configs/memnet.py:copy --out=runs/copy         (and :repeat_copy) rules x windows
  bash launch/local.sh sweep --config=configs/memnet.py:cost --out=runs/cost         ms and bytes of an update
  bash launch/local.sh --config=configs/memnet.py:ntm_copy --workdir=runs/ntm_copy   (and :associative_recall)
  bash launch/local.sh sweep --config=configs/memnet.py:omniglot_small --out=runs/omniglot      (:omniglot_online: full)
  bash launch/local.sh sweep --config=configs/memnet.py:strokes_stream --out=runs/strokes      easier images

gated_recall, measured: 3 seeds, ± 95 % (Student's t over seeds), 1500 batches of 64 episodes per seed, window 3. The
command takes 94 seconds on two idle CPU cores, 15 runs of three seeds each.

  L   arm                 common         rare           batches to .9: common, rare (median)
  12  tbptt               .258 ± .112    .000 ± .000    never  never
  12  dni                 1.000 ± .000   1.000 ± .000   150    350
  12  cdni                1.000 ± .000   1.000 ± .000   150    250
  12  bptt                1.000 ± .000   1.000 ± .000   250    500
  12  bptt_equal_updates  1.000 ± .000   1.000 ± .000   100    150
  24  tbptt               .256 ± .098    .000 ± .000    never  never
  24  dni                 1.000 ± .000   1.000 ± .000   300    400
  24  cdni                1.000 ± .000   1.000 ± .000   150    200
  24  bptt                1.000 ± .000   1.000 ± .000   350    600
  24  bptt_equal_updates  1.000 ± .000   1.000 ± .000   50     100
  48  tbptt               .274 ± .078    .000 ± .000    never  never
  48  dni                 .241 ± .102    .000 ± .000    never  never
  48  cdni                1.000 ± .000   1.000 ± .000   100    150
  48  bptt                .976 ± .103    .667 ± 1.434   500    600 (two seeds of three)
  48  bptt_equal_updates  1.000 ± .000   1.000 ± .000   50     50

So synthetic gradients restore the credit that truncation takes away. They do not beat full backpropagation: with as
many updates on each batch it is the fastest at every length. Unlabelled feedback (dni) fails at 16 windows; the label
that cdni sees is privileged training information.

shared, measured: area under the learning curve (mean accuracy over 400 batches, L = 24, cDNI), 3 seeds, 86 CPU-seconds.
Transferred feedback was trained on L = 12 with other networks, `own` on L = 24 with other networks.

  feedback                       common         rare           by seed, rare
  none: zero, frozen             .284 ± .032    .000 ± .000
  zero, learned                  .872 ± .013    .626 ± .058
  transferred, frozen            .644 ± .833    .276 ± .597    .44 .00 .39
  transferred, learned on        .866 ± .017    .625 ± .058
  own, frozen                    .638 ± .841    .314 ± .675    .47 .00 .47
  three networks, one model      .831 ± .050    .580 ± .082
  three sizes, learned adapters  .850 ± .026    .603 ± .061

A frozen model that never saw the network teaches two of three fresh networks, which no feedback never does, and more
slowly than a model that learns; the third it does not teach, and there a frozen model of its own task fails too. As a
start for further learning it gives no advantage here, and neither does one model for three networks: a null result.

copy, measured: longest sequence solved within 12000 updates of one window each (LSTM of 16 units, rows of 2 bits, 32
episodes, 3 seeds; 16 runs, 960 seconds of a shared core, most of them BP(lambda)'s):

  T   BPTT(T)    DNI        DNI+Aux    BP(lambda)
  2   2, 2, 2    2, 2, 3    2, 2, 3    3, 3, 3
  3   3, 3, 2    3, 3, 3    3, 3, 3    3, 3, 3
  4   3, 3, 3    3, 3, 3    3, 3, 3    3, 3, 3
  5   3, 3, 3    3, 3, 3    3, 3, 4    3, 3, 3

At this budget the arms differ at T = 2 alone, where BP(lambda) solves one row more in every seed; the R^2 of the
feedback models is within .05 of 0. Published copy results took far longer training.

repeat_copy, measured: the same setting, rows said one to three times; 3 seeds, 840 seconds of a third of a core:

  T   BPTT(T)    DNI        DNI+Aux    BP(lambda)
  2   2, 2, 2    2, 2, 2    2, 2, 2    2, 2, 2
  3   2, 2, 2    2, 2, 2    2, 2, 2    2, 2, 2
  4   2, 2, 2    3, 2, 3    3, 3, 3    3, 2, 2
  5   2, 2, 2    3, 2, 3    3, 3, 3    3, 2, 3

Here feedback carries what truncation cuts: with the auxiliary task one row more than truncated BPTT in every seed at T
= 4 and 5, without it in two of three. Copy shows no such difference.

omniglot_small, measured: one seed, 12000 updates of 32 episodes (384,000; the full run has 1.6 million), images of 14 x
14, 96 units, new classes, ± 95 % over 8192 episodes, the same ones for both (python -m metalearn.eval --workdir=...
--config.evaluators.instances.episodes=8192); 894 seconds of a shared core for the memory (LRUA), 595 for the LSTM.
Targets in brackets, and what is missing to them:

  presentation  1                   2                   5                   10
  LRUA          .242 ± .004 (.356)  .669 ± .005 (.888)  .755 ± .004 (.973)  .816 ± .004 (.976)
    missing     .114                .219                .218                .160
  LSTM          .233 ± .004 (.233)  .661 ± .005 (.590)  .748 ± .004 (.708)  .804 ± .004 (.723)
    missing     .000                none                none                none

Both leave the plateau after some 45,000 episodes. The memory ends a hundredth above the LSTM, in one seed: that is no
advantage worth the name. The training loss stands still too (.65 and .68), so it is probably seeing that holds both
back, not remembering. Over training (updates: presentation 2, 10; 512 episodes):

  LRUA  2000: .46 .57   4000: .61 .77   6000: .66 .80   8000: .67 .80   10000: .67 .80   12000: .67 .81
  LSTM  2000: .44 .58   4000: .61 .72   6000: .64 .78   8000: .65 .80   10000: .65 .79   12000: .66 .80

Against the reimplementation: there each step's class is drawn freely (here each appears ten times), images are also
shifted and turned a little, 20 x 20, with 200 units, 128 slots, 4 heads. Its cell reads what it has just written and
writes a vector of its own. Ours had neither: with the key as what is written, labels not made louder, 20 x 20 and 128
units, .43 at the fifth presentation took 80,000 episodes instead of 38,000.

strokes_stream, measured: one seed, 4000 updates of 32 episodes on made-up characters of 8 x 8, 64 units, new classes, ±
95 % over 512 episodes; 220 seconds of a shared core for the memory, 103 for the LSTM:

  presentation  1             2             5             10
  LRUA          .177 ± .015   .496 ± .017   .617 ± .017   .647 ± .015
  LSTM          .220 ± .016   .524 ± .018   .674 ± .016   .691 ± .016

The memory leaves the plateau sooner (training accuracy .46 against .40 after 1500 updates) and ends lower. That a
memory beats an LSTM, as MANN reports, has not been reproduced here at any size tried. Untested: a slot for every step
(here 32 for 50), four heads, the full run. Three seeds with 64 flat slots had not left the plateau after 1500 updates,
over which the rate fell to zero.

cost, measured on shared cores, 15 runs, 876 seconds with a third of a core (bytes are the compiler's, of one update
beside its arguments; NSE memory 32 x 16, batch 16, window 16, steps not unrolled):

  bytes, MB   L = 256  1024   4096
  truncated   3.03     3.03   3.03
  synthetic   3.07     3.05   3.46
  full BPTT   47.8     191    764

One synthetic update, L = 256, CPU ms | positions/s | compile s | MB: LSTM .48 | 534,000 | 4.8 | .85; outer LSTM 1.6 |
155,000 | 9.8 | 2.6; NSE 4.7 | 35,000 | 11 | 3.1; NTM 4.1 | 63,000 | 15 | 4.3; LRUA 4.2 | 37,000 | 9 | 2.5; DNC with
links 10.5 | 17,000 | 17 | 8.4. Runs minutes apart on that machine differ up to twofold, even in CPU time, so the
sweep's own overhead of synthetic over truncated (-29 to 61 % over repeats) says nothing there. Both programs in turn,
600 updates each, median CPU time: NSE 4.19 to 4.61 ms (10 %), with steps unrolled by four 5.07 to 5.90 (16 %);
earlier, on idler cores, NSE 14 %, LSTM .340 to .380 ms (12 %), the 8-float register of gated recall .081 to .144 (78
%: at that size every operation counts).

ntm_copy, measured: 3 seeds, trained on 1 to 10 rows of 4 bits for 8000 updates, 239 seconds on one shared core. Right
bits 1.000 up to 15 rows, .997 at 20; all three seeds solve 20 (below .15 bit). An LSTM controller in its place, 7000
updates: one of three seeds.

associative_recall, measured: 3 seeds, trained on 2 to 6 items of 2 x 6 bits for 8000 updates of 16 episodes each, 469
seconds of a shared core: all three seeds solve 12 items, twice the training length (below .15 bit; bits in the mean
.012 at 6 items, at most .087 at any number of them, .054 at 12; right bits .998 at 6 and .985 at 12). Changed at once,
against the setting that did not learn (two seeds at 2 items, one at 5, after 6400 updates): a flat start, since to the
cosine jittered slots are so many more keys; no curriculum, since of two items the answer is always the last one; 16
episodes instead of 32 and twice the rate. An LSTM controller in its place stood at .92 bit at 6 items after 1000
updates, in all three seeds.
"""

from __future__ import annotations

import functools
import os

from ml_collections import ConfigDict

from configs import common

ARMS = {
    "tbptt": dict(rule="tbptt"),
    "dni": dict(rule="synthetic"),
    "cdni": dict(rule="synthetic", feedback=dict(context="label")),
    "bptt": dict(rule="bptt"),
    "bptt_equal_updates": dict(rule="bptt_equal_updates"),
}
LENGTHS = (12, 24, 48)
BATCHES = 1500
HERE = os.path.abspath(__file__)
SEEDS = (0, 1, 2)  # replicas, side by side in one program


def get_config(arg: str = "") -> ConfigDict:
    variants = {f.__name__: f for f in (gated_recall, cost, copy, repeat_copy, ntm_copy, associative_recall,
                                        omniglot_online, rare_stream, digits_stream, sinusoid,
                                        few_shot, few_shot_stream, smoke)}
    variants |= {"omniglot_online_lstm": lambda: omniglot_online("lstm"), "omniglot_small": omniglot_small,
                 "omniglot_small_lstm": lambda: omniglot_small("lstm"), "strokes_stream": strokes_stream,
                 "strokes_stream_lstm": lambda: strokes_stream("lstm"), "shared": shared,
                 "shared_sizes": lambda: shared(({}, dict(width=6), dict(width=12)), "learned")}
    variants |= {f"cost_{name}": functools.partial(cost, network=network) for name, network in MEMORIES.items()}
    return ConfigDict(common.choose(arg, variants, "gated_recall")())


def feedback(**changes) -> dict:
    """A linear feedback model that sees the state alone; see metalearn.learners.memnet."""
    return dict(context="none", clock=False, hidden=0, heads=(), gamma=1.0, clip=0.0, gate=False, trace=0.0, aux=0.0,
                adapter="none") | changes


def learner(network: dict, **changes) -> dict:
    return dict(name="memnet", network=network, members=(), inputs="x", label_gain=1.0, rule="synthetic", window=3,
                feedback=feedback(), speeds=dict(scope="persistent", fast=1.0, slow=1.0, mix=0.5, leak=1.0, match=""),
                curriculum=dict(start=0, bits=0.15), replicas=1, unroll=4, remat=False) | changes


def optim(lr: float, feedback_lr: float, **changes) -> dict:
    """Adam for the network, Adam for its feedback model; norms are taken, and clipped, within each."""
    mine = dict(match="^(feedback|adapter)/", lr=feedback_lr, clip=0.0)
    return common.adam(lr, groups=dict(feedback=mine), **changes)


def gated_recall(arm: str = "cdni", length: int = 24) -> dict:
    """One arm: 3 seeds side by side, 64 episodes each per batch, evaluated every 50 batches."""
    changes = dict(ARMS[arm])
    changes["feedback"] = feedback(**changes.get("feedback", {}))
    updates = 1 if arm == "bptt" else length // 3
    every = 50 * updates
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(),
        task=dict(name="gated_recall", symbols=8, length=length, rare_frac=0.1, task_seed=0),
        learner=learner(dict(name="gated", width=8, bias=-3.0), replicas=3, window=3, **changes),
        optim=optim(5e-3, 5e-3, clip=0.0),
        train=common.train(batch=192, steps=BATCHES * updates, steps_per_call=every, log_every=every,
                           save_every=BATCHES * updates, eval_every=every),
        evaluators=dict(rare=dict(name="rare_recall", split="balanced", episodes=512, seed=1)),
    )


def shared(members: tuple = ({}, {}, {}), adapter: str = "none") -> dict:
    """cDNI with one feedback model for three networks, each on its own 64 episodes a batch; 3 seeds."""
    config = gated_recall("cdni", 24)
    config["learner"] |= dict(members=members)
    config["learner"]["feedback"] |= dict(adapter=adapter)
    config["train"] |= dict(batch=3 * 192)
    return config


MEMORIES = {
    "lstm": dict(name="lstm", hidden=32),
    "outer_lstm": dict(name="outer_lstm", size=8, num_heads=4),
    "nse": dict(name="nse", slots=32, width=16, hidden=32, controller="lstm", similarity="dot", memory="learned"),
    "ntm": dict(name="ntm", slots=32, width=16, hidden=32, reads=1, controller="lstm", memory="learned", shifts=1),
    "lrua": dict(name="lrua", slots=32, width=16, hidden=32, reads=1, controller="lstm", memory="constant", decay=0.95,
                 adds="own"),
    "dnc": dict(name="dnc", slots=32, width=16, hidden=32, reads=1, controller="lstm", memory="constant", links=True),
}


COST_LENGTHS = (256, 1024, 4096)


def cost(network: dict = MEMORIES["nse"]) -> dict:
    """One update and its compiled working memory: flat in the episode's length for window rules, growing for BPTT.
    Steps are not unrolled: compiling would be most of the sweep."""
    config = gated_recall("cdni", 256)
    config["learner"] |= dict(rule="synthetic", window=16, replicas=1, network=network, unroll=1)
    config["train"] |= dict(batch=16, steps=1, steps_per_call=1, log_every=1, save_every=1, eval_every=0)
    config["evaluators"] = dict(cost=dict(name="update_cost", batch=16, repeats=50, positions=16))
    return config


def copying(task: dict, network: dict, **changes) -> dict:
    """Bits out, an answer per row; the curriculum is off unless asked for."""
    lengths = tuple(range(1, 2 * task["max_length"] + 1))
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(),
        task=dict(name="copy", exact=False, task_seed=0) | task,
        learner=learner(network, **changes),
        optim=optim(1e-3, 1e-4, clip=1.0),
        train=common.train(batch=96, steps=20000, steps_per_call=200, log_every=1000, save_every=20000),
        evaluators=dict(lengths=dict(name="length_generalisation", lengths=lengths, solved_bits=0.15, episodes=128,
                                     seed=1)),
    )


SMALL = dict(name="lstm", hidden=16)
NTM = dict(name="ntm", slots=32, width=12, hidden=64, reads=1, controller="ffn", memory="learned", shifts=1)


def copy() -> dict:
    """A window shorter than the dependency: the level rises by one when the loss falls below .15 bit. In small: an
    LSTM of 16 units, rows of 2 bits, 3 seeds of 32 episodes."""
    config = copying(dict(bits=2, max_length=8, repeats=1, exact=True), SMALL, replicas=3, window=4,
                     feedback=feedback(gamma=0.9, clip=1.0, gate=True), curriculum=dict(start=1, bits=0.15))
    config["optim"] = optim(3e-3, 3e-4, clip=1.0)
    config["train"] |= dict(steps=COPY_UPDATES, save_every=COPY_UPDATES, log_every=2000, steps_per_call=1000)
    return config


def repeat_copy() -> dict:
    config = copy()
    config["task"] |= dict(max_length=5, repeats=3)
    config["evaluators"]["lengths"] |= dict(lengths=tuple(range(1, 11)))
    return config


COPY_UPDATES = 12000
COPY_ARMS = {
    "BPTT(T)": {"learner.rule": "tbptt"},
    "DNI": {},
    "DNI+Aux": {"learner.feedback.aux": 1.0},
    "BP(lambda)": {"learner.feedback.trace": 1.0},
}


def ntm_copy() -> dict:
    """NTM, full BPTT, trained up to 10 rows, measured up to 20; 3 seeds side by side."""
    config = copying(dict(bits=4, max_length=10, repeats=1), NTM, rule="bptt", window=21, replicas=3)
    config["optim"] |= dict(clip=10.0)
    config["train"] |= dict(batch=96, steps=8000, save_every=8000)
    return config


def associative_recall() -> dict:
    """NTM that starts flat, full BPTT, trained on 2..6 items of 2 x 6 bits, measured up to 12; 3 seeds side by side."""
    config = ntm_copy()
    config["task"] = dict(name="associative_recall", bits=6, rows=2, max_items=6, task_seed=0)
    config["learner"] |= dict(window=23, network=NTM | dict(slots=48, width=16, memory="flat"))
    config["optim"] = optim(2e-3, 2e-4, clip=10.0, decay="cosine")
    config["train"] |= dict(batch=48, steps=8000, save_every=2000, eval_every=1000)
    config["evaluators"]["lengths"] |= dict(lengths=tuple(range(2, 13)))
    return config


MANN = {"MANN, a public reimplementation": {"1": 0.356, "2": 0.888, "5": 0.973, "10": 0.976},
        "LSTM, the same": {"1": 0.233, "2": 0.590, "5": 0.708, "10": 0.723}}


STREAMS = ("omniglot_online", "omniglot_small", "strokes_stream")


def omniglot_online(network: str = "lrua") -> dict:
    """5-way, one-hot labels one step late, 50 steps; batch 16, Adam 1e-3, full BPTT as MANN trains."""
    nets = {"lrua": dict(name="lrua", slots=128, width=40, hidden=200, reads=4, controller="lstm", memory="flat",
                         decay=0.95, adds="own"),
            "lstm": dict(name="lstm", hidden=200)}
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(),
        task=dict(name="omniglot_stream", dataset="omniglot", train="train", test="test", image_size=20, ways=5,
                  shots=10, rare_ways=0, rare_shots=0, rotate=True, task_seed=0),
        learner=learner(nets[network], inputs="x_and_last_label", label_gain=4.0, rule="bptt", window=10),
        optim=optim(1e-3, 1e-4, clip=10.0),
        train=common.train(batch=16, steps=100000, steps_per_call=100, log_every=500, save_every=5000, eval_every=5000),
        evaluators=dict(instances=dict(name="kth_presentation", split="test", upto=10, episodes=512, chunk=128, seed=1,
                                       targets=MANN)),
    )


def omniglot_small(network: str = "lrua") -> dict:
    """The same protocol with smaller images and networks and fewer episodes, for two cores."""
    config = omniglot_online(network)
    sizes = dict(slots=32, width=32, hidden=96, reads=1, memory="constant") if network == "lrua" else dict(hidden=96)
    config["task"] |= dict(image_size=14)
    config["learner"]["network"] |= sizes
    config["optim"] = optim(3e-3, 3e-4, clip=10.0, decay="cosine")
    config["train"] |= dict(batch=32, steps=12000, log_every=500, save_every=2000, eval_every=1000)
    return config


def strokes_stream(network: str = "lrua") -> dict:
    """The same protocol on made-up characters of 8x8, where seeing is easier, with smaller networks."""
    config = omniglot_small(network)
    config["task"] |= dict(dataset="strokes", train="classes:0-499", test="classes:500-599", image_size=0)
    config["learner"]["network"] |= dict(hidden=64)
    config["train"] |= dict(steps=4000, save_every=1000, eval_every=500)
    config["evaluators"]["instances"] |= dict(targets={})
    return config


def rare_stream() -> dict:
    """A stream in which a tenth of what is shown is a rare class: five labels nine times each, one five times."""
    config = omniglot_online()
    config["task"] |= dict(ways=6, shots=9, rare_ways=1, rare_shots=5)
    config["evaluators"]["instances"] |= dict(upto=5, targets={})
    return config


def digits_stream() -> dict:
    """`omniglot_online` in small, on the built-in digits: three of five classes to learn from, five new ones."""
    config = omniglot_online()
    config["task"] |= dict(dataset="digits", train="classes:0-4", test="classes:5-9", image_size=0, ways=3, shots=5)
    config["learner"]["network"] |= dict(slots=16, width=12, hidden=32, reads=1)
    config["train"] |= dict(steps=3000, save_every=3000, eval_every=1000)
    config["evaluators"]["instances"] |= dict(upto=5, targets={})
    return config


def _brief(**changes) -> dict:
    """A run of 400 batches of `gated_recall`, measured every 20."""
    return {"train.steps": 3200, "train.save_every": 3200, "train.log_every": 160, "train.steps_per_call": 160,
            "train.eval_every": 160} | changes


def sinusoid() -> dict:
    """Sine waves from 10 points: x with y, then x alone. Tasks never repeat, so the logged loss is the error on new
    ones."""
    config = digits_stream()
    config["task"] = dict(name="sinusoid", shots=10, queries=10, amplitude=(0.1, 5.0), phase=(0.0, 3.14159),
                          x_range=(-5.0, 5.0), noise=0.0, num_tasks=0, task_seed=0)
    config["learner"] |= dict(inputs="x_and_shown_label", network=MEMORIES["nse"], window=5)
    config["train"] |= dict(batch=32, eval_every=0)
    config["evaluators"] = {}
    return config


def few_shot() -> dict:
    """5-way 1-shot on made-up characters; labels stand beside the support images."""
    config = sinusoid()
    config["task"] = dict(name="fewshot", dataset="strokes", train_split="classes:0-499", val_split="classes:500-599",
                          test_split="classes:500-599", new_dataset="", image_size=0, channels=0, flat=True,
                          rotations="none", ways=5, shots=1, queries=2, train_ways=0, form="pair", num_tasks=0,
                          task_seed=0)
    config["learner"] |= dict(network=MEMORIES["lrua"])
    config["evaluators"] = dict(fewshot=dict(name="fewshot", sets=("test",), episodes=256, chunk=64, seed=1,
                                             episodes_sha256=()))
    return config


def few_shot_stream() -> dict:
    """The same characters as a stream, the label one step late."""
    config = few_shot()
    config["task"] |= dict(form="stream", shots=5, queries=1)
    config["learner"] |= dict(inputs="x_and_last_label")
    config["evaluators"] = dict(instances=dict(name="kth_presentation", split="test", upto=6, episodes=256, chunk=64,
                                               seed=1,
                                               targets={}))
    return config


FROZEN = {"seed": 1, "optim.freeze": "^feedback/"}
GATED = {"_stage": 1, "_config": f"{HERE}:gated_recall"}
TRANSFER = {  # the first two only make feedback models, on episodes of 12 and of 24 steps; all others learn on 24
    "source, 12 steps": {"_config": f"{HERE}:gated_recall", "task.length": 12},
    "source, 24 steps": {"_config": f"{HERE}:gated_recall"},
    "none: zero, frozen": GATED | FROZEN,
    "zero, learned": GATED | {"seed": 1},
    "transferred, frozen": GATED | FROZEN | {"init_from": "{dir}/000::^feedback/"},
    "transferred, learned on": GATED | {"seed": 1, "init_from": "{dir}/000::^feedback/"},
    "own, frozen": GATED | FROZEN | {"init_from": "{dir}/001::^feedback/"},
    "three networks, one model": {"seed": 1, "_stage": 1, "_config": f"{HERE}:shared"},
    "three sizes, learned adapters": {"seed": 1, "_stage": 1, "_config": f"{HERE}:shared_sizes"},
}
TRANSFER = {name: _brief(**changes) for name, changes in TRANSFER.items()}


def smoke() -> dict:
    config = gated_recall("cdni", 6)
    config["learner"] |= dict(network=dict(name="nse", slots=4, width=5, hidden=6, controller="lstm", similarity="dot",
                                           memory="learned"), replicas=2)
    config["train"] |= dict(batch=8, steps=4, steps_per_call=2, log_every=2, save_every=2, eval_every=0)
    config["evaluators"]["rare"] |= dict(episodes=16)
    return config


def sweep(arg: str = "gated_recall"):
    """gated_recall: arms x lengths. copy, repeat_copy: rules x windows. shared: transferred and joint feedback. cost:
    rules x lengths, then every memory. omniglot_online, omniglot_small, strokes_stream: memory and LSTM."""
    if arg in ("", "gated_recall"):
        for length in LENGTHS:
            for arm in ARMS:
                flat = gated_recall(arm, length)
                train = flat["train"]
                paced = ("steps", "steps_per_call", "log_every", "save_every", "eval_every")
                yield {"task.length": length, "learner.rule": flat["learner"]["rule"],
                       "learner.feedback.context": flat["learner"]["feedback"]["context"],
                       **{f"train.{k}": train[k] for k in paced}}
    elif arg in ("copy", "repeat_copy"):
        for window in (2, 3, 4, 5):
            for changes in COPY_ARMS.values():
                yield {"learner.window": window} | changes
    elif arg == "shared":
        yield from (dict(run) for run in TRANSFER.values())
    elif arg == "cost":
        for length in COST_LENGTHS:
            for rule in ("tbptt", "synthetic", "bptt"):
                whole = {"evaluators.cost.positions": length, "evaluators.cost.repeats": 3} if rule == "bptt" else {}
                yield {"task.length": length, "learner.rule": rule} | whole
        for name in MEMORIES:
            yield {"_config": f"{HERE}:cost_{name}", "learner.rule": "synthetic"}
    elif arg in STREAMS:
        yield {}
        yield {"_config": f"{HERE}:{arg}_lstm"}
    else:
        known = ("gated_recall", "cost", "copy", "repeat_copy", "shared", *STREAMS)
        common.choose(arg, dict.fromkeys(known), "")


def summarise(results, arg: str = "gated_recall") -> dict:
    from metalearn.reporting import memnet  # here, so that reading a config loads nothing

    if arg == "cost":
        return memnet.cost(results, [*(f"nse L={n}" for n in COST_LENGTHS for _ in range(3)), *MEMORIES])
    if arg in ("copy", "repeat_copy"):
        return memnet.copy(results, COPY_ARMS)
    if arg == "shared":
        return memnet.shared(results, list(TRANSFER), len(SEEDS))
    if arg in STREAMS:
        return memnet.streams(results, MANN if arg != "strokes_stream" else {})
    return memnet.gated(results)
