"""Command line, data formats and checkpoints, case by case and without a network; what holds for all three scripts."""

import argparse
import hashlib
import io
import os
import re
import runpy
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

import q1_vae
import utils
from data.synthetic import synthetic_digits
from results import runs, vae
from tests.helpers import FLAGS, ROOT, arrays, digest, write_mnist

each_script = pytest.mark.parametrize("script", FLAGS)


# --- Command line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("q1_vae", "--epochs 0", "'0' is not a whole number from 1 to"),
        ("q1_vae", f"--latent-size {10**25}", "is not a whole number from 1 to"),
        ("q1_vae", f"--batch-size {'9' * 401}", "is not a whole number from 1 to"),
        ("q1_vae", "--lr nan", "'nan' is not a finite number above 0"),
        ("q1_vae", "--lr 1e999", "'1e999' is not a finite number above 0"),
        ("q1_vae", "--device abacus", "device 'abacus' cannot be used: "),
        ("q1_vae", "--device meta", "device 'meta' cannot be used: "),
        ("q1_vae", "--device cuda:98", "device 'cuda:98' cannot be used: "),
        ("q1_vae", "--epoch 1", "unrecognized arguments: --epoch 1"),
        ("q2_gan", "--penalty 0", "'0' is not a finite number above 0"),
        ("q2_gan", "--samples 1", "'1' is not a whole number from 2 to"),
        ("q2_gan", "--snapshots 0 7 --iterations 6", "--snapshots 7 lies past --iterations 6"),
        ("q2_gan", "--perturb-dims 8 --latent-size 8", "--perturb-dims 8: dimensions go from 0 to 7"),
    ],
)
def test_bad_flags_are_named_in_one_line(script, flags, message):
    with pytest.raises(utils.InputError, match=message) as error:
        import_module(script).get_args(flags.split())
    assert "\n" not in str(error.value)


VAE = {"data": "binarized_mnist", "seed": 0, "repeats": 1, "epochs": 20, "batch_size": 64, "lr": 3e-4}
VAE |= {"latent_size": 100, "kl_samples": 10, "importance_samples": 200, "test_images": 10_000}
VAE |= {"curve_samples": [1, 5, 10, 50, 200, 1000]}
GAN = {"data": "svhn", "seed": 0, "iterations": 50_000, "critic_updates": 5, "penalty": 10, "batch_size": 64}
GAN |= {"lr": 1e-4, "betas": [0.5, 0.9], "width": 64, "latent_size": 100, "perturb_dims": [3, 30, 35, 50]}
GAN |= {"samples": 10_000, "certainty": 0.9, "neighbours": 5, "coverage_samples": 5000, "held_out": 10_000}
GAN |= {"repeats": 1, "controls": 20, "epsilons": [1, 2, 3, 5, 10, 20], "snapshots": [0, 7000, 20_000, 50_000]}
SIMSIAM = {"data": "cifar10", "seed": 0, "repeats": 1, "runs": ["baseline", "no_stop_gradient", "no_predictor"]}
SIMSIAM |= {"epochs": 100, "batch_size": 1024, "lr": 0.03, "momentum": 0.9, "weight_decay": 5e-4, "dim": 2048}
SIMSIAM |= {"pred_dim": 512, "knn_k": 200, "knn_temperature": 0.1, "train_images": 0, "test_images": 0}
SIMSIAM |= {"precision": "float32"}


@pytest.mark.parametrize(("script", "defaults"), [("q1_vae", VAE), ("q2_gan", GAN), ("q3_simsiam", SIMSIAM)])
def test_defaults_are_the_assignments(script, defaults):
    args = vars(import_module(script).get_args(["--device", "cpu"]))
    assert {key: args[key] for key in defaults} == defaults


@pytest.mark.parametrize(
    ("flags", "data", "out", "restart", "epochs"),
    [
        ("", "binarized_mnist", "results/q1_vae", False, 20),
        ("--data mnist", "mnist", "results/q1_vae_mnist", False, 20),
        ("--quick", "synthetic", "results/quick/q1_vae", True, q1_vae.QUICK["epochs"]),
    ],
)
def test_other_data_and_quick_have_folders_of_their_own_in_the_repository(
    flags, data, out, restart, epochs, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    args = q1_vae.get_args(flags.split())
    assert (args.data, args.out.resolve(), args.restart, args.epochs) == (data, ROOT / out, restart, epochs)
    assert args.data_dir.resolve() == ROOT / "data" and list(tmp_path.iterdir()) == []
    monkeypatch.chdir(ROOT)
    assert q1_vae.get_args(flags.split()).out == Path(out)


def test_quick_restarts_nothing_elsewhere_and_explicit_flags_win():
    args = q1_vae.get_args("--quick --out long --epochs 7".split())
    assert (args.data, args.out, args.restart, args.epochs) == ("synthetic", Path("long"), False, 7)


@each_script
def test_help_is_in_groups(script, capsys):
    with pytest.raises(SystemExit):
        import_module(script).get_args(["--help"])
    _, *groups = re.split(r"\n(\w.*):\n(?:  default .*\n\n)?  -", capsys.readouterr().out)
    titles, texts = groups[::2], groups[1::2]
    assert titles == ["options", "data, folders, device", "recipe", "measuring"]
    assert "-data-dir" in texts[1] and "\n  --lr LR " in texts[2]


def test_own_images_have_a_name_and_a_folder_of_their_own(tmp_path):
    np.savez(tmp_path / "digits.npz", **arrays())
    args = q1_vae.get_args(["--data", "digits", "--data-dir", str(tmp_path)])
    assert args.out.resolve() == ROOT / "results" / "q1_vae_digits"
    assert utils.load_data(args.data, args.data_dir)["source"] == "made for a test"
    assert q1_vae.get_args("--data moved_away --figures-only".split()).out.name == "q1_vae_moved_away"
    for name in ("digit", "../data/digits", str(tmp_path / "digits"), "cifar10", ""):
        with pytest.raises(utils.InputError, match=r"give binarized_mnist, mnist, synthetic, or NAME of .*/NAME\.npz"):
            q1_vae.get_args(["--data", name, "--data-dir", str(tmp_path)])


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")])
def test_auto_device_is_cuda_else_mps_else_cpu(cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "ones", lambda *_, device: torch.zeros(1))
    assert utils.choose_device("auto").type == expected


def test_device_that_is_listed_but_does_not_work_is_passed_over_and_refused_by_its_name(monkeypatch, capsys):
    def ones(*_, device):
        raise RuntimeError(f"no kernel image\nfor {device}")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 99)
    monkeypatch.setattr(torch, "ones", ones)
    assert utils.choose_device("auto").type == "cpu"
    assert capsys.readouterr().err == "cuda is there but cannot be used: no kernel image for cuda\n"
    monkeypatch.setattr(torch, "ones", lambda *_, device: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA is full")))
    with pytest.raises(utils.InputError, match="device 'auto' cannot be used: CUDA is full"):
        utils.choose_device("auto")
    monkeypatch.setattr(torch, "ones", ones)
    reason = "no kernel image for cuda:1; give --device cpu"
    with pytest.raises(utils.InputError, match=f"device 'cuda:1' cannot be used: {reason}"):
        utils.choose_device("cuda:1")


def test_processor_is_named_by_its_model(monkeypatch):
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor\t: 0\nmodel name\t: Abacus 9\nflags\t: fpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert utils.describe(torch.device("cpu")) == "cpu (Abacus 9, 3 threads)"


KEPT = "q9.py: not enough memory; what was saved is kept\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (utils.InputError("no such thing"), 2, "q9.py: no such thing\n"),
        (OSError(28, "No space left on device", "a.pt"), 2, "q9.py: [Errno 28] No space left on device: 'a.pt'\n"),
        (BrokenPipeError(32, "Broken pipe"), 2, "q9.py: [Errno 32] Broken pipe\n"),
        (ModuleNotFoundError("No module named 'scipy'"), 2, "q9.py: No module named 'scipy'\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, KEPT),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, KEPT),
        (MemoryError(), 2, KEPT),
        (KeyboardInterrupt(), 130, "\ninterrupted; run again: python q9.py --out 'a b'\n"),
        (KeyboardInterrupt("at 7"), 130, "\ninterrupted; at 7; run again: python q9.py --out 'a b'\n"),
    ],
)
def test_run_ends_with_one_line_and_the_exit_status(error, status, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["somewhere/q9.py", "--out", "a b", "--restart"])

    def main():
        raise error

    with pytest.raises(SystemExit) as exit_:
        utils.run(main)
    assert exit_.value.code == status and capsys.readouterr() == ("", line)


@pytest.mark.parametrize("error", [RuntimeError("an illegal memory access"), RuntimeError("memory format")])
def test_other_errors_keep_their_traceback(error):
    def main():
        raise error

    with pytest.raises(type(error), match=str(error)):
        utils.run(main)


@each_script
def test_bad_input_ends_a_script_with_status_2_and_one_line(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--lr", "0"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(ROOT / f"{script}.py"), run_name="__main__")
    line = f"{script}.py: argument --lr: '0' is not a finite number above 0 (--help lists the flags)\n"
    assert exit_.value.code == 2 and capsys.readouterr() == ("", line)


def test_closed_streams_end_nothing(monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    with pytest.raises(SystemExit) as exit_:
        utils.run(lambda: print("text", file=sys.stderr))
    assert exit_.value.code == 0
    sys.stdout.close()
    sys.stderr.close()


def test_output_that_cannot_be_flushed_is_told_once(tmp_path, monkeypatch, capsys):
    with (tmp_path / "output").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["q9.py"])
        os.dup2(os.open("/dev/full", os.O_WRONLY), stream.fileno())
        with pytest.raises(SystemExit) as exit_:
            utils.run(lambda: print("text"))
        assert exit_.value.code == 2 and "No space left on device" in capsys.readouterr().err


def test_output_that_the_encoding_lacks_ends_nothing(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as exit_:
        utils.run(lambda: print("ε ± 1"))
    stream.flush()
    assert exit_.value.code == 0 and stream.buffer.getvalue() == "? ± 1".encode("cp1252") + b"\n"


def test_a_stream_that_cannot_be_configured_is_taken_as_it_is(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as exit_:
        utils.run(lambda: print("ε ± 1"))
    assert exit_.value.code == 0 and stream.getvalue() == "ε ± 1\n"


SURROUNDINGS = """
import os, sys
sys.modules["matplotlib_inline"] = None  # not installed
import q1_vae, matplotlib, utils
assert os.environ["MPLBACKEND"] == "module://matplotlib_inline.backend_inline"
assert matplotlib.rcParams["font.size"] == 30
with utils.default_style():
    figure, _ = utils.subplots(1, 1)
    utils.save_figure(figure, utils.Path("figure.png"))
assert matplotlib.rcParams["font.size"] == 30
"""


def test_figures_depend_on_nobodys_settings_of_matplotlib_and_change_none(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\n")
    environment = {"PYTHONPATH": str(ROOT), "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    subprocess.run([sys.executable, "-c", SURROUNDINGS], cwd=tmp_path, env=os.environ | environment, check=True)
    figure, _ = utils.subplots(1, 1)
    utils.save_figure(figure, tmp_path / "expected.png")
    assert (tmp_path / "figure.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_a_backend_that_is_installed_stays_the_users():
    text = "import q1_vae, matplotlib; print(matplotlib.get_backend())"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "svg"}
    command = [sys.executable, "-c", text]
    process = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert process.stdout == "svg\n"


# --- Data: one file ---------------------------------------------------------------------------------------------------


def test_npz_is_taken_first(tmp_path):
    np.savez(tmp_path / "synthetic.npz", **arrays())
    assert utils.load_data("synthetic", tmp_path)["source"] == "made for a test"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None, "train_images": None}, "lacks test_labels, train_images"),
        ({"source": None}, "lacks source"),
        ({"source": np.array(["a", "b"])}, "cannot be read as .npz"),
        ({"train_images": np.zeros((12, 28, 28))}, "train_images is float64"),
        ({"train_images": np.zeros((12, 784), np.uint8)}, r"train_images is uint8 \(12, 784\)"),
        ({"train_images": np.zeros((12, 3, 32, 32), np.uint8)}, r"train_images is uint8 \(12, 3, 32, 32\)"),
        ({"train_images": np.zeros((12, 0, 28), np.uint8)}, r"train_images is uint8 \(12, 0, 28\)"),
        ({"valid_images": np.zeros((12, 784), np.uint8)}, "valid_images is uint8"),
        ({"test_labels": np.zeros((3, 1), np.uint8)}, "test_labels is uint8"),
        ({"test_labels": np.zeros(4, np.uint8)}, "test_labels must hold one label"),
        ({"test_labels": np.full(3, 10, np.uint8)}, "test_labels must hold one label"),
        ({"train_labels": np.array([None] * 12)}, "cannot be read as .npz"),
    ],
)
def test_bad_npz_is_named(changes, message, tmp_path):
    np.savez(tmp_path / "mnist.npz", **arrays(**changes))
    with pytest.raises(utils.InputError, match=message) as error:
        utils.load_data("mnist", tmp_path)
    assert "mnist.npz" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:1000],
        lambda raw: raw[:-30],
        lambda raw: b"PK\x05\x06" + bytes(18),  # an empty archive
        lambda raw: raw[raw.index(b"\x93NUMPY") :],  # an .npy
    ],
)
def test_file_that_is_no_npz_is_named_and_kept(damage, tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, **arrays())
    path.write_bytes(damage(path.read_bytes()))
    before = digest(tmp_path)
    with pytest.raises(utils.InputError, match=r"mnist\.npz (cannot be read|lacks)"):
        utils.load_data("mnist", tmp_path)
    assert digest(tmp_path) == before


@pytest.mark.parametrize(
    ("save", "start", "stop"),
    [
        (np.savez_compressed, 0, -22),
        (np.savez, 60, 160),  # the first array's header
        (np.savez, -22, None),  # the archive's end
    ],
)
def test_npz_with_a_flipped_bit_is_refused_or_loaded_as_it_was(save, start, stop, tmp_path):
    path, generator = tmp_path / "mnist.npz", np.random.default_rng(0)
    save(path, **arrays(train_images=generator.integers(0, 256, (12, 28, 28), np.uint8)))
    raw, expected = path.read_bytes(), utils.load_data("mnist", tmp_path)
    places = range(len(raw))[start:stop]
    for place in generator.choice(places, 200):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        with suppress(utils.InputError):
            np.testing.assert_equal(utils.load_data("mnist", tmp_path), expected)


@pytest.mark.parametrize(
    ("script", "changes", "message"),
    [
        ("q1_vae", {"train_images": np.zeros((1, 28, 28), np.uint8), "train_labels": np.zeros(1, np.uint8)}, "too few"),
        ("q1_vae", {"test_images": np.zeros((3, 32, 32), np.uint8)}, r"are \(32, 32\); problem 1 takes 28 x 28"),
        ("q2_gan", {}, "at least four test images are needed"),
        ("q2_gan", {"train_images": np.zeros((12, 48, 48), np.uint8)}, r"images are \(48, 48\); 32 x 32 or 28 x 28"),
    ],
)
def test_data_that_a_script_cannot_take_are_named_and_leave_no_folder(script, changes, message, tmp_path):
    out, flags = tmp_path / "out", FLAGS[script].split()
    np.savez(tmp_path / f"{flags[1]}.npz", **arrays(**changes))
    with pytest.raises(utils.InputError, match=message):
        import_module(script).main([*flags, "--data-dir", str(tmp_path), "--out", str(out), "--device", "cpu"])
    assert not out.exists()


# --- Data: binarized MNIST --------------------------------------------------------------------------------------------


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def amat(tmp_path, monkeypatch):
    """Three small .amat files, served on this machine in place of the official address, and their images."""
    server = tmp_path / "server"
    server.mkdir()
    images = {}
    for i, split in enumerate(utils.AMAT_MD5):
        images[split] = (np.random.default_rng(i).random((4 + i, 28, 28)) < 0.5).astype(np.uint8)
        text = "".join(" ".join(map(str, row)) + "\n" for row in images[split].reshape(-1, 784))
        (server / f"binarized_mnist_{split}.amat").write_text(text)
        monkeypatch.setitem(utils.AMAT_MD5, split, hashlib.md5(text.encode()).hexdigest())
    handler = partial(QuietHandler, directory=server)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        Thread(target=http.serve_forever, args=(0.01,)).start()
        monkeypatch.setattr(utils, "AMAT_URL", f"http://127.0.0.1:{http.server_port}/")
        yield server, images
        http.shutdown()


def test_amat_files_are_downloaded_once_and_parsed(amat, tmp_path, monkeypatch):
    for _ in range(2):
        data = utils.load_data("binarized_mnist", tmp_path / "data")
        for split, images in amat[1].items():
            assert np.array_equal(data[f"{split}_images"], images)
        assert data["source"] in vae.SOURCES
        monkeypatch.setattr(utils, "AMAT_URL", "http://127.0.0.1:1/")


def test_damaged_amat_file_is_named_and_kept(amat, tmp_path):
    path = tmp_path / "data" / "binarized_mnist" / "binarized_mnist_valid.amat"
    utils.load_data("binarized_mnist", tmp_path / "data")
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    before = digest(tmp_path)
    with pytest.raises(utils.InputError, match=r"binarized_mnist_valid\.amat has the wrong MD5"):
        utils.load_data("binarized_mnist", tmp_path / "data")
    assert digest(tmp_path) == before


@pytest.mark.parametrize("answer", ["nothing", "another file", "no HTTP"])
def test_failed_download_names_mnist_in_its_place_and_keeps_what_is_finished(amat, answer, tmp_path, monkeypatch):
    path = amat[0] / "binarized_mnist_valid.amat"
    if answer == "nothing":
        path.unlink()
    if answer == "another file":
        path.write_text("<html>moved</html>")
    if answer == "no HTTP":
        monkeypatch.setattr(QuietHandler, "do_GET", lambda self: self.wfile.write(b"garbage\r\n\r\n"))
    with pytest.raises(utils.InputError, match=r"download failed .*; --data mnist binarises MNIST in its place"):
        utils.load_data("binarized_mnist", tmp_path / "data")
    finished = [] if answer == "no HTTP" else ["binarized_mnist_train.amat"]
    assert [path.name for path in (tmp_path / "data").glob("*/*")] == finished


# --- Data: torchvision and synthetic ----------------------------------------------------------------------------------


def test_mnist_of_torchvision(tmp_path):
    images = write_mnist(tmp_path / "MNIST" / "raw")
    data = utils.load_data("mnist", tmp_path)
    assert np.array_equal(data["train_images"], images) and data["test_labels"].tolist() == list(range(6))
    assert data["test_labels"].dtype == np.uint8 and data["source"] == "MNIST (torchvision)"


DAMAGED = "is damaged or incomplete; complete it, or delete"


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("mnist", "MNIST/raw/t10k-images-idx3-ubyte", bytes([0, 0, 8, 3, 0, 0, 0, 6]), DAMAGED),
        ("mnist", "MNIST/raw/train-labels-idx1-ubyte", bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]), "one label"),
        ("svhn", "train_32x32.mat", b"half", DAMAGED),
        ("cifar10", "cifar-10-batches-py/data_batch_1", b"half", DAMAGED),
    ],
)
def test_damaged_files_of_torchvision_are_named_and_kept(name, file, content, message, tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    for path in (file, "test_32x32.mat", "cifar-10-batches-py/test_batch"):  # so that nothing is to be downloaded
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    before = digest(tmp_path)
    with pytest.raises(utils.InputError, match=message):
        utils.load_data(name, tmp_path)
    assert digest(tmp_path) == before


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("svhn", "SVHN"), ("cifar10", "CIFAR10")])
def test_interrupted_download_leaves_nothing(name, kind, tmp_path, monkeypatch):
    class Dataset:
        def __init__(self, root, download=False, **_):
            Path(root, "train_32x32.mat").write_bytes(b"half")
            raise RuntimeError("File not found or corrupted.\nmore")

    monkeypatch.setattr(utils, kind, Dataset)
    message = rf"no {name} in .* failed \(File not found or corrupted\. more\)"
    with pytest.raises(utils.InputError, match=message) as error:
        utils.load_data(name, tmp_path)
    assert "\n" not in str(error.value) and not tmp_path.exists()


@pytest.mark.parametrize(
    ("name", "kind", "archive", "last"),
    [
        ("mnist", "MNIST", "MNIST/raw/t10k-labels-idx1-ubyte.gz", "MNIST/raw/t10k-labels-idx1-ubyte"),
        ("cifar10", "CIFAR10", "cifar-10-python.tar.gz", "cifar-10-batches-py/test_batch"),
    ],
)
def test_archives_fetched_by_hand_are_unpacked(name, kind, archive, last, tmp_path, monkeypatch):
    """By a class that unpacks the archive that lies there, and fails without as torchvision's without a network."""

    class Dataset:
        def __init__(self, root, download=False, **_):
            if download and not Path(root, archive).exists():
                raise RuntimeError("no network")
            if download:
                for file in utils.MNIST_FILES if name == "mnist" else [last]:
                    Path(root, file).parent.mkdir(parents=True, exist_ok=True)
                    Path(root, file).write_bytes(Path(root, archive).read_bytes())
            self.data, self.targets = np.zeros((4, 28, 28), np.uint8), np.zeros(4, np.uint8)

    monkeypatch.setattr(utils, kind, Dataset)
    path, foreign = tmp_path / archive, tmp_path / "imagenet.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"packed")
    foreign.symlink_to("nowhere")
    assert utils.load_data(name, tmp_path)["train_images"].shape == (4, 28, 28)
    assert (tmp_path / last).read_bytes() == b"packed" == path.read_bytes()
    assert not list(tmp_path.glob(".download-*"))


def test_what_was_fetched_stays_where_the_rest_fails(tmp_path, monkeypatch):
    class Dataset:
        def __init__(self, root, split, download=False):
            if split == "test":
                raise RuntimeError("no network")
            self.data, self.labels = np.zeros((4, 3, 32, 32), np.uint8), np.zeros(4, np.uint8)
            if download:
                Path(root, "train_32x32.mat").write_bytes(b"whole")

    monkeypatch.setattr(utils, "SVHN", Dataset)
    with pytest.raises(utils.InputError, match=r"no svhn in .* failed \(no network\)"):
        utils.load_data("svhn", tmp_path)
    assert digest(tmp_path) == {"train_32x32.mat": b"whole"}


def test_synthetic_digits_depend_on_the_seed_alone():
    images, labels = synthetic_digits(1500, 0)
    again, other = synthetic_digits(1500, 0), synthetic_digits(1500, 1)
    assert images.shape == (1500, 28, 28) and images.dtype == labels.dtype == np.uint8
    assert np.array_equal(images, again[0]) and np.array_equal(labels, again[1])
    assert not np.array_equal(images, other[0])
    assert np.bincount(labels, minlength=10).min() > 100


def test_synthetic_labels_name_the_digits():
    (images, labels), (test, expected) = (synthetic_digits(n, n) for n in (3000, 500))
    means = np.stack([images[labels == digit].mean(0) for digit in range(10)]).reshape(10, -1)
    nearest = ((test.reshape(500, 1, -1) - means) ** 2).sum(2).argmin(1)
    assert (nearest == expected).mean() > 0.7


# --- Files ------------------------------------------------------------------------------------------------------------


def test_what_a_kill_left_is_swept_after_a_day(tmp_path):
    old, new, other = (tmp_path / f"a.{name}.part" for name in ("0123abcd", "4567cdef", "notes"))
    folders = [tmp_path / ".download-abc", tmp_path / "binarized_mnist" / ".download-abc"]
    for path in (old, new, other, *(folder / "file" for folder in folders)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    np.savez(tmp_path / "mnist.npz", **arrays())
    day, now = 24 * 60 * 60, time.time()
    for path, age in ((old, day + 60), (new, day - 60), (other, day + 60)):
        os.utime(path, (now - age, now - age))
    runs.open_out(argparse.Namespace(out=tmp_path, restart=False), "q1_vae", [])
    assert not old.exists() and new.exists() and other.exists()
    for age, left in ((day - 60, True), (day + 60, False)):
        for folder in folders:
            os.utime(folder, (now - age, now - age))
        utils.load_data("mnist", tmp_path)
        assert [folder.exists() for folder in folders] == [left, left]


def test_jobs_with_one_process_number_do_not_share_a_temporary_file(tmp_path, monkeypatch):
    parts = []
    monkeypatch.setattr(Path, "replace", lambda part, _: parts.append(part.name))
    for _ in range(2):
        utils.write(tmp_path / "metrics.json", "{}")
    assert len(set(parts)) == 2 and all(part.endswith(".part") for part in parts)


@pytest.mark.parametrize(("failures", "written"), [(3, True), (4, False)])
def test_a_target_that_is_held_for_a_moment_is_tried_again(failures, written, tmp_path, monkeypatch):
    replace, calls, waits = Path.replace, [], []

    def held(part, target):
        calls.append(1)
        if len(calls) <= failures:
            raise PermissionError(13, "Access is denied")
        return replace(part, target)

    monkeypatch.setattr(Path, "replace", held)
    monkeypatch.setattr(utils.time, "sleep", waits.append)
    if written:
        utils.write(tmp_path / "a", "text")
    else:
        with pytest.raises(utils.InputError, match=r"cannot write .*: Access is denied"):
            utils.write(tmp_path / "a", "text")
    assert digest(tmp_path) == ({"a": b"text"} if written else {}) and waits == [0.1, 0.5, 2.0]


def test_time_to_go_is_at_the_rate_since_the_start(monkeypatch):
    monkeypatch.setattr(utils, "time", argparse.Namespace(perf_counter=lambda: 1810.4))
    assert str(utils.time_to_go(10.0, 2, 6)) == "1:00:01"
