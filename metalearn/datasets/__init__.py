"""Datasets: labelled images on the host, by name or by file. The only folder that imports tensorflow_datasets.

  digits                 scikit-learn's 1,797 digits of 8x8, built in
  strokes                600 made-up characters of 8x8 with 20 drawings each, made when asked for
  textures, blobs        300 made-up patterns of 8x8 with 30 drawings each, classes divided into train, val and test
  FILE.npz               x (N, height, width[, channels]) or (N, features), y (N,) numbers or text[, x_test, y_test]
  a folder's path        CLASS/*.png, or {train,val,test}/CLASS/*.png (jpg, bmp, gif)
  a folder of idx files  METALEARN_DATA/NAME with the four files of MNIST's format: mnist, fashion_mnist, emnist/letters
  omniglot, cifar_fs     the .npz files under METALEARN_DATA
  any name               prepared beforehand by `metalearn datasets prepare NAME`

`load` gives raw pixels with the dataset's own train/test division; `load_classes` the classes of one split, resized;
`split_features` splits a dataset into meta-train and meta-test and turns pixels into features.
"""

from metalearn.datasets.catalogue import class_split, data_root
from metalearn.datasets.dataset import Absent, Dataset
from metalearn.datasets.features import SPLITS_BY, Inputs, Part, Prepared, split_features
from metalearn.datasets.reading import SPLITS, load, load_classes
from metalearn.datasets.sources import is_own, made_or_listed

__all__ = ["SPLITS", "SPLITS_BY", "Absent", "Inputs", "Part", "Dataset", "Prepared", "class_split", "data_root",
           "is_own", "load", "load_classes", "made_or_listed", "split_features"]
