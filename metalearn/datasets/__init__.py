"""Datasets: labelled images on the host, by name or by file. The only folder that imports tensorflow_datasets.

  digits                 scikit-learn's 1,797 digits of 8x8, built in
  strokes                600 made-up characters of 8x8 with 20 drawings each, made when asked for
  FILE.npz               `x` (N, height, width[, channels]) or (N, features), `y` (N,); optional x_test, y_test
  a folder of idx files  METALEARN_DATA/NAME with the four files of MNIST's format: mnist, fashion_mnist, emnist/letters
  omniglot, cifar_fs     the .npz files under METALEARN_DATA
  any name               prepared beforehand by `python -m metalearn.datasets prepare NAME`

`load` gives raw pixels with the dataset's own train/test division; `load_classes` the classes of one split, resized;
`split_features` splits a dataset into meta-train and meta-test and turns pixels into features.
"""

from metalearn.datasets.catalogue import class_split, data_root
from metalearn.datasets.features import SPLITS_BY, Part, Prepared, split_features
from metalearn.datasets.reading import SPLITS, Dataset, load, load_classes

__all__ = ["SPLITS", "SPLITS_BY", "Part", "Dataset", "Prepared", "class_split", "data_root", "load", "load_classes",
           "split_features"]
