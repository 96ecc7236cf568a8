"""The data sets that can be chosen. To add one, add an entry to DATASETS.

The licences are CC BY-SA 3.0 for MNIST (LeCun, Cortes, Burges), MIT for Fashion-MNIST (Zalando) and
CC BY-SA 4.0 for KMNIST (ROIS-DS Center for Open Data in the Humanities).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """A data set in MNIST's format: 28 × 28 gray levels, ten classes, four IDX files.

    Attributes:
        title: the name in tables and figures.
        torchvision: the class in torchvision.datasets that knows the public mirrors and the MD5
            checksums of the packed files; empty if the files come from the user's mirror only.
        sha256: the checksums of the unpacked files, in the order of `aevb.data.RAW_FILES`; empty
            if only the MD5 checksums of the packed files are published.

    Raises:
        ValueError: if there are no checksums, or not four.
    """

    title: str
    torchvision: str
    sha256: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that there are checksums for every file."""
        if len(self.sha256) != (0 if self.torchvision and not self.sha256 else 4):
            raise ValueError(f"{self.title}: needs four checksums or a class of torchvision")


DATASETS = {
    "mnist": Dataset(
        title="MNIST",
        torchvision="MNIST",
        sha256=(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    "fashion_mnist": Dataset(
        title="Fashion-MNIST",
        torchvision="FashionMNIST",
        sha256=(),
    ),
    "kmnist": Dataset(
        title="KMNIST",
        torchvision="KMNIST",
        sha256=(),
    ),
}
