"""Command line, data formats and checkpoints, case by case and without a network."""

import argparse
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

import q1_vae
import utils
from data.synthetic import synthetic_digits
from results import vae


def digest(folder):
    """What is in a folder: {relative path: bytes}."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def arrays(**changes):
    """A valid one-file data set of 12 + 3 grey digits, with some entries replaced (None removes one)."""
    data = {"train_images": np.zeros((12, 28, 28), np.uint8), "train_labels": np.zeros(12, np.uint8)}
    data |= {"test_images": np.zeros((3, 28, 28), np.uint8), "test_labels": np.zeros(3, np.uint8)}
    data |= {"source": np.array("made for a test")}
    return {key: value for key, value in (data | changes).items() if value is not None}


# --- Command line -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "imagenet"], "invalid choice: 'imagenet'"),
        (["--epochs", "0"], "'0' is not a whole number from 1 to"),
        (["--epochs", "2.5"], "'2.5' is not a whole number from 1 to"),
        (["--lr", "nan"], "'nan' is not a finite number above 0"),
        (["--lr", "-1"], "'-1' is not a finite number above 0"),
        (["--lr", "1e999"], "'1e999' is not a finite number above 0"),
        (["--seed", "-1"], "'-1' is not a whole number"),
        (["--batch-size", "many"], "'many' is not a whole number from 1 to"),
        (["--device", "abacus"], "device 'abacus' is not available here; there is"),
        (["--device", "cuda:99"], "device 'cuda:99' is not available here; there is"),
        (["--batch-size", "9" * 401], "is not a whole number from 1 to"),
        (["--latent-size", str(10**25)], "is not a whole number from 1 to"),
        (["--device", "cpu:1"], "device 'cpu:1' is not available here; there is"),
        (["--epoch", "1"], "unrecognized arguments: --epoch 1"),
    ],
)
def test_bad_flags_are_named(flags, message, tmp_path):
    with pytest.raises(utils.InputError, match=message) as error:
        q1_vae.get_args([*flags, "--out", str(tmp_path / "out")])
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_parsing_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    q1_vae.get_args([])
    assert list(tmp_path.iterdir()) == []


def open_out(out, *checkpoints, restart=False):
    utils.open_out(argparse.Namespace(out=out, restart=restart), "q1_vae", checkpoints)


def test_unwritable_out_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(utils.InputError, match="cannot write to --out"):
        open_out(tmp_path / "file" / "out")


def test_folder_of_another_scripts_results_is_refused(tmp_path):
    metrics = tmp_path / "metrics.json"
    metrics.write_text('{"script": "q2_gan"}')
    with pytest.raises(utils.InputError, match="holds the results of q2_gan; give another --out"):
        open_out(tmp_path)
    for own in ('{"script": "q1_vae"}', "{}", "[]", "damaged"):
        metrics.write_text(own)
        open_out(tmp_path)


def test_restart_removes_the_named_checkpoints_alone(tmp_path):
    for name in ("a.pt", "b.pt", "metrics.json"):
        (tmp_path / name).touch()
    open_out(tmp_path, tmp_path / "a.pt", tmp_path / "none.pt")
    assert (tmp_path / "a.pt").exists()
    open_out(tmp_path, tmp_path / "a.pt", tmp_path / "none.pt", restart=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.pt", "metrics.json"]


def test_quick_changes_defaults_but_not_explicit_flags(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    args = q1_vae.get_args(["--quick", "--test-images", "7"])
    assert (args.data, args.out, args.epochs, args.test_images) == (
        "synthetic",
        Path("results/quick/q1_vae"),
        q1_vae.QUICK["epochs"],
        7,
    )
    args = q1_vae.get_args([])
    assert (args.data, args.out, args.epochs) == ("binarized_mnist", Path("results/q1_vae"), 20)


def test_other_data_has_another_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert q1_vae.get_args(["--data", "synthetic"]).out == Path("results/q1_vae_synthetic")


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")])
def test_auto_device_is_cuda_else_mps_else_cpu(cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(utils, "try_device", lambda _: "")
    assert utils.choose_device("auto").type == expected


def test_device_that_is_listed_but_does_not_work_is_passed_over_and_refused_by_its_name(monkeypatch, capsys):
    """Here torch has no CUDA, or no card that lies past the last one."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 99)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(utils, "try_device", lambda d: "no kernel image" if d.type == "cuda" else "")
    assert utils.choose_device("auto").type == "cpu"
    assert capsys.readouterr().err == "cuda is there but cannot be used: no kernel image\n"
    with pytest.raises(utils.InputError, match="device 'cuda:1' cannot be used: no kernel image; give --device cpu"):
        utils.choose_device("cuda:1")


def test_a_device_is_tried_by_computing_on_it():
    assert utils.try_device(torch.device("cpu")) == ""
    assert utils.try_device(torch.device("cuda:98")) != ""


KEPT = "q9.py: not enough memory; what was saved is kept\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (utils.InputError("no such thing"), 2, "q9.py: no such thing\n"),
        (OSError(28, "No space left on device", "a.pt"), 2, "q9.py: [Errno 28] No space left on device: 'a.pt'\n"),
        (ModuleNotFoundError("No module named 'scipy'"), 2, "q9.py: No module named 'scipy'\n"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, KEPT),
        (torch.OutOfMemoryError("CUDA out of memory"), 2, KEPT),
        (MemoryError(), 2, KEPT),
        (KeyboardInterrupt(), 130, "\ninterrupted; go on with: python q9.py --out 'a b'\n"),
    ],
)
def test_run_ends_with_one_line_and_the_exit_status(error, status, line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["somewhere/q9.py", "--out", "a b", "--restart"])

    def main():
        raise error

    with pytest.raises(SystemExit) as exit_:
        utils.run(main)
    assert exit_.value.code == status and capsys.readouterr() == ("", line)


def test_an_os_error_that_names_no_file_keeps_its_traceback():
    def main():
        raise OSError("handle is closed")

    with pytest.raises(OSError, match="handle is closed"):
        utils.run(main)


def test_output_that_the_encoding_lacks_ends_nothing(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as exit_:
        utils.run(lambda: print("ε ± 1"))
    stream.flush()
    assert exit_.value.code == 0 and stream.buffer.getvalue() == "? ± 1".encode("cp1252") + b"\n"


@pytest.mark.parametrize("text", ["an illegal memory access was encountered", "unsupported memory format option"])
def test_other_errors_that_name_memory_are_not_taken_for_a_lack_of_it(text):
    def main():
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match=text):
        utils.run(main)


def test_quick_begins_anew_in_its_own_folder_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert q1_vae.get_args(["--quick"]).restart and not q1_vae.get_args([]).restart
    assert not q1_vae.get_args(["--quick", "--out", "long_training"]).restart


SURROUNDINGS = """
import os, sys
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
sys.modules["matplotlib_inline"] = None  # not installed
import q1_vae, utils
figure, _ = utils.subplots(1, 1)
utils.save_figure(figure, utils.Path("figure.png"))
"""


def test_figures_depend_on_nobodys_settings_of_matplotlib(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.size: 30\n")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    subprocess.run([sys.executable, "-c", SURROUNDINGS], cwd=tmp_path, env=environment, check=True)
    figure, _ = utils.subplots(1, 1)
    utils.save_figure(figure, tmp_path / "expected.png")
    assert (tmp_path / "figure.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


# --- Data: one file ---------------------------------------------------------------------------------------------------


def test_npz_is_taken_first(tmp_path):
    images = np.arange(12 * 28 * 28, dtype=np.uint8).reshape(12, 28, 28)
    np.savez(tmp_path / "svhn.npz", **arrays(train_images=images))
    data = utils.load_data("svhn", tmp_path)
    assert data["source"] == "made for a test" and np.array_equal(data["train_images"], images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None, "train_images": None}, "lacks test_labels, train_images"),
        ({"source": None}, "lacks source"),
        ({"source": np.array(["a", "b"])}, "cannot be read as .npz"),
        ({"train_images": np.zeros((12, 28, 28))}, "train_images is float64"),
        ({"train_images": np.zeros((12, 784), np.uint8)}, r"train_images is uint8 \(12, 784\)"),
        ({"train_images": np.zeros((12, 3, 32, 32), np.uint8)}, r"train_images is uint8 \(12, 3, 32, 32\)"),
        ({"train_images": np.zeros((0, 28, 28), np.uint8)}, r"train_images is uint8 \(0, 28, 28\)"),
        ({"train_images": np.zeros((12, 0, 28), np.uint8)}, r"train_images is uint8 \(12, 0, 28\)"),
        ({"valid_images": np.zeros((12, 784), np.uint8)}, "valid_images is uint8"),
        ({"test_labels": np.zeros((3, 1), np.uint8)}, "test_labels is uint8"),
        ({"test_labels": np.zeros(4, np.uint8)}, "test_labels must hold one label"),
        ({"test_labels": np.full(3, 10, np.uint8)}, "test_labels must hold one label"),
        ({"train_labels": np.array([None] * 12)}, "cannot be read as .npz"),
    ],
)
def test_bad_npz_is_named_and_kept(changes, message, tmp_path):
    np.savez(tmp_path / "mnist.npz", **arrays(**changes))
    before = digest(tmp_path)
    with pytest.raises(utils.InputError, match=message) as error:
        utils.load_data("mnist", tmp_path)
    assert "mnist.npz" in str(error.value) and "\n" not in str(error.value) and digest(tmp_path) == before


@pytest.mark.parametrize("keep", [0, 30, 1000, -30])
def test_truncated_npz_is_named_and_kept(keep, tmp_path):
    path = tmp_path / "mnist.npz"
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:keep])
    before = digest(tmp_path)
    with pytest.raises(utils.InputError, match=r"mnist\.npz cannot be read"):
        utils.load_data("mnist", tmp_path)
    assert digest(tmp_path) == before


def test_too_few_images_are_refused_by_problem_1(tmp_path):
    one = np.zeros((1, 28, 28), np.uint8)
    np.savez(tmp_path / "mnist.npz", **arrays(train_images=one, train_labels=np.zeros(1, np.uint8)))
    args = q1_vae.get_args(["--data", "mnist", "--data-dir", str(tmp_path), "--out", str(tmp_path), "--device", "cpu"])
    with pytest.raises(utils.InputError, match="made for a test: too few images to train and validate"):
        q1_vae.load_images(args)


def test_flipped_bytes_of_a_compressed_npz_are_named(tmp_path):
    path, generator = tmp_path / "mnist.npz", np.random.default_rng(0)
    images = generator.integers(0, 256, (12, 28, 28), np.uint8)
    np.savez_compressed(path, **arrays(train_images=images))
    raw = path.read_bytes()
    failures = 0
    for _ in range(200):
        damaged = bytearray(raw)
        damaged[generator.integers(len(raw))] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        try:
            utils.load_data("mnist", tmp_path)
        except utils.InputError:
            failures += 1
    assert failures > 100


@pytest.mark.parametrize("content", [b"<html>moved</html>", b"PK\x05\x06" + bytes(18)])
def test_file_that_is_no_npz_is_named(content, tmp_path):
    (tmp_path / "mnist.npz").write_bytes(content)
    with pytest.raises(utils.InputError, match=r"mnist\.npz (cannot be read|lacks)"):
        utils.load_data("mnist", tmp_path)


def test_npy_named_npz_is_named(tmp_path):
    np.save(tmp_path / "mnist.npy", np.zeros(3))
    (tmp_path / "mnist.npy").rename(tmp_path / "mnist.npz")
    with pytest.raises(utils.InputError, match=r"mnist\.npz cannot be read"):
        utils.load_data("mnist", tmp_path)


def test_images_of_another_size_are_refused_by_problem_1(tmp_path):
    np.savez(tmp_path / "mnist.npz", **arrays(test_images=np.zeros((3, 32, 32), np.uint8)))
    args = q1_vae.get_args(["--data", "mnist", "--data-dir", str(tmp_path), "--out", str(tmp_path), "--device", "cpu"])
    with pytest.raises(utils.InputError, match=r"images are \(32, 32\); problem 1 takes 28 x 28"):
        q1_vae.load_images(args)


def test_grey_images_are_binarised_with_their_intensity_and_the_last_sixth_validates(tmp_path):
    grey = np.full((60, 28, 28), 51, np.uint8)  # 51 / 255 = 0.2
    grey[50:] = 255
    np.savez(tmp_path / "mnist.npz", **arrays(train_images=grey, train_labels=np.zeros(60, np.uint8)))
    args = q1_vae.get_args(["--data", "mnist", "--data-dir", str(tmp_path), "--out", str(tmp_path), "--device", "cpu"])
    images, source = q1_vae.load_images(args)
    assert source == "made for a test, each pixel binarised once with a fixed seed"
    assert images["train"].shape == (50, 784) and images["train"].unique().tolist() == [0, 1]
    assert images["train"].float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert images["valid"].shape == (10, 784) and images["valid"].min() == 1
    assert torch.equal(images["train"], q1_vae.load_images(args)[0]["train"])


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
        Thread(target=http.serve_forever).start()
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
    assert len(list((tmp_path / "data" / "binarized_mnist").iterdir())) == 3


@pytest.mark.parametrize("damage", [lambda raw: raw[:-100], lambda raw: raw.replace(b"0", b"1", 1), lambda raw: b""])
def test_damaged_amat_file_is_named_and_kept(amat, damage, tmp_path):
    path = tmp_path / "data" / "binarized_mnist" / "binarized_mnist_valid.amat"
    utils.load_data("binarized_mnist", tmp_path / "data")
    path.write_bytes(damage(path.read_bytes()))
    before = digest(tmp_path)
    with pytest.raises(utils.InputError, match=r"binarized_mnist_valid\.amat has the wrong MD5"):
        utils.load_data("binarized_mnist", tmp_path / "data")
    assert digest(tmp_path) == before


def write_mnist(folder, num=6):
    """Write idx files of `num` + `num` images in torchvision's layout and return the training images."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (num, 28, 28), np.uint8)
    for prefix in ("train", "t10k"):
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(num, dtype=np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            (folder / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return images


@pytest.mark.parametrize("server_holds", ["nothing", "another file"])
def test_failed_download_names_mnist_in_its_place_and_leaves_nothing(amat, server_holds, tmp_path):
    path = amat[0] / "binarized_mnist_valid.amat"
    path.unlink() if server_holds == "nothing" else path.write_text("<html>moved</html>")
    with pytest.raises(utils.InputError, match=r"download failed .*; --data mnist binarises MNIST in its place"):
        utils.load_data("binarized_mnist", tmp_path / "data")
    assert not (tmp_path / "data" / "binarized_mnist").exists()


def test_garbled_answer_is_a_failed_download(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(utils, "AMAT_URL", f"http://127.0.0.1:{server.getsockname()[1]}/")

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"garbage\r\n\r\n")

        Thread(target=answer).start()
        with pytest.raises(utils.InputError, match="download failed"):
            utils.load_data("binarized_mnist", tmp_path)


# --- Data: torchvision and synthetic ----------------------------------------------------------------------------------


def test_mnist_of_torchvision(tmp_path):
    images = write_mnist(tmp_path / "MNIST" / "raw")
    data = utils.load_data("mnist", tmp_path)
    assert np.array_equal(data["train_images"], images) and data["test_labels"].tolist() == list(range(6))
    assert data["test_labels"].dtype == np.uint8 and data["source"] == "MNIST (torchvision)"


@pytest.mark.parametrize("damage", [lambda raw: raw[:-100], lambda raw: b"<html>moved</html>"])
def test_damaged_mnist_is_named_and_kept(damage, tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    before = digest(tmp_path)
    with pytest.raises(utils.InputError, match=r"mnist in .* is damaged or incomplete"):
        utils.load_data("mnist", tmp_path)
    assert digest(tmp_path) == before


def test_mnist_with_too_few_labels_is_named(tmp_path):
    write_mnist(tmp_path / "MNIST" / "raw")
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 1, 2, 3]))
    with pytest.raises(utils.InputError, match="train_labels must hold one label"):
        utils.load_data("mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "file"), [("svhn", "train_32x32.mat"), ("cifar10", "cifar-10-batches-py/data_batch_1")]
)
def test_half_a_download_of_torchvision_is_named_and_kept(name, file, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"half")
    before = digest(tmp_path)
    with pytest.raises(utils.InputError, match="is damaged or incomplete; complete it, or delete"):
        utils.load_data(name, tmp_path)
    assert digest(tmp_path) == before


@pytest.mark.parametrize("name", ["mnist", "svhn", "cifar10"])
def test_interrupted_download_leaves_nothing(name, tmp_path, monkeypatch):
    class Dataset:
        def __init__(self, root, download=False, **_):
            Path(root, "train_32x32.mat").write_bytes(b"half")
            raise RuntimeError("File not found or corrupted.\nmore")

    monkeypatch.setattr(utils, {"mnist": "MNIST", "svhn": "SVHN", "cifar10": "CIFAR10"}[name], Dataset)
    with pytest.raises(
        utils.InputError, match=rf"no {name} in .* failed \(File not found or corrupted\. more\)"
    ) as error:
        utils.load_data(name, tmp_path)
    assert "\n" not in str(error.value) and not tmp_path.exists()


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


# --- Checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model, path = torch.nn.Linear(2, 2), tmp_path / "checkpoint.pt"
    utils.save_checkpoint(path, {"lr": 0.1, "epochs": 3}, {"model": model}, {"loss": [1.0, 0.5], "seconds": [1, 1]})
    return path, model


CONFIG = {"lr": 0.1, "epochs": 3}


def test_checkpoint_restores_weights_history_and_the_rng(saved):
    path, model = saved
    expected, other = torch.rand(3), torch.nn.Linear(2, 2)
    assert utils.load_checkpoint(path, CONFIG, {"model": other}) == {"loss": [1.0, 0.5], "seconds": [1, 1]}
    assert torch.equal(torch.rand(3), expected) and torch.equal(model.weight, other.weight)


@pytest.mark.parametrize(
    ("done", "text"),
    [(0, "training begins, 3 epochs"), (2, "going on after epoch 2 of 3"), (3, "finished, 3 epochs")],
)
def test_what_a_command_does_is_said(done, text, capsys):
    utils.announce(Path("a", "c.pt"), done, 3, "epoch")
    assert capsys.readouterr().out == f"c.pt: {text}\n"


def test_training_past_its_end_is_refused():
    with pytest.raises(utils.InputError, match=r"c\.pt is at epoch 4 already; give --epochs 4 or more"):
        utils.announce(Path("c.pt"), 4, 3, "epoch")


def test_checkpoint_of_another_configuration_is_named_and_kept(saved):
    path, model = saved
    before = path.read_bytes()
    with pytest.raises(utils.InputError, match=r"was made with --lr 0\.1, not 0\.2; give the same"):
        utils.load_checkpoint(path, {"lr": 0.2, "epochs": 3}, {"model": model})
    assert path.read_bytes() == before


def test_checkpoint_with_a_changed_weight_is_named(saved):
    path, model = saved
    weight = next(model.parameters()).detach().numpy().tobytes()
    assert path.read_bytes().count(weight) == 1
    path.write_bytes(path.read_bytes().replace(weight, bytes(len(weight))))
    with pytest.raises(utils.InputError, match="cannot be read as a checkpoint"):
        utils.load_checkpoint(path, {}, {"model": model})


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_damaged_checkpoint_is_named(saved, content):
    path, model = saved
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(utils.InputError, match="cannot be read as a checkpoint"):
        utils.load_checkpoint(path, {"lr": 0.1, "epochs": 3}, {"model": model})


def test_checkpoint_with_code_in_it_is_refused(saved):
    path, model = saved
    torch.save({"config": Path("x"), "states": os.system}, path)
    with pytest.raises(utils.InputError, match="cannot be read as a checkpoint"):
        utils.load_checkpoint(path, {}, {"model": model})


def test_full_disk_is_named_and_keeps_the_last_checkpoint(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()

    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(utils.InputError, match=r"cannot write .*checkpoint\.pt: No space left on device"):
        utils.save_checkpoint(path, {}, {"model": model}, {})
    assert digest(path.parent) == {path.name: before}


def test_checkpoint_of_another_layout_is_named(saved):
    path, _ = saved
    with pytest.raises(utils.InputError, match="does not hold what it is needed for"):
        utils.load_checkpoint(path, {"lr": 0.1, "epochs": 3}, {"model": torch.nn.Linear(3, 3)})


LACKS = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), ModuleNotFoundError("No module named 'scipy'")]
LACKS += [RuntimeError("DefaultCPUAllocator: can't allocate memory"), PermissionError(13, "Permission denied", "a")]


@pytest.mark.parametrize("lack", LACKS, ids=lambda lack: type(lack).__name__)
def test_a_lack_of_the_machines_is_never_called_a_damaged_file(lack, saved, monkeypatch):
    def fail(*_, **__):
        raise lack

    path, model = saved
    np.savez(path.parent / "mnist.npz", **arrays())
    write_mnist(path.parent / "MNIST" / "raw")
    for target, name in ((torch, "load"), (np, "load"), (utils, "MNIST"), (torch.nn.Linear, "load_state_dict")):
        monkeypatch.setattr(target, name, fail)
    for read in (
        lambda: utils.load_checkpoint(path, {}, {"model": model}),
        lambda: utils.load_npz(path.parent / "mnist.npz"),
        lambda: utils.load_torchvision("mnist", path.parent),
    ):
        with pytest.raises(type(lack)):
            read()
    monkeypatch.undo()
    monkeypatch.setattr(torch.nn.Linear, "load_state_dict", fail)
    with pytest.raises(type(lack)):
        utils.load_checkpoint(path, {}, {"model": model})


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


def test_killed_save_keeps_the_last_checkpoint(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        utils.save_checkpoint(path, {}, {"model": model}, {})
    assert path.read_bytes() == before


@pytest.fixture
def tiny(tmp_path):
    """Flags of a run of problem 1 on 12 black images."""
    np.savez(tmp_path / "mnist.npz", **arrays())
    out = tmp_path / "out"
    return ["--data", "mnist", "--data-dir", str(tmp_path), "--out", str(out), "--epochs", "1", "--device", "cpu"], out


def test_other_flags_overwrite_nothing(tiny):
    flags, out = tiny
    q1_vae.main(flags)
    before = digest(out)
    with pytest.raises(utils.InputError, match=r"was made with --lr 0\.0003, not 0\.1"):
        q1_vae.main([*flags, "--lr", "0.1"])
    assert digest(out) == before


def test_failed_loading_leaves_no_folder(tiny):
    flags, out = tiny
    (out.parent / "mnist.npz").write_bytes(b"junk")
    with pytest.raises(utils.InputError, match=r"cannot be read as \.npz"):
        q1_vae.main(flags)
    assert not out.exists()


def test_download_loads_and_ends(tiny, capsys):
    flags, out = tiny
    q1_vae.main([*flags, "--download"])
    assert "data: made for a test" in capsys.readouterr().out and not out.exists()


def test_figures_only_without_metrics_is_refused(tiny):
    flags, out = tiny
    with pytest.raises(utils.InputError, match=r"holds no intact metrics\.json to draw from"):
        q1_vae.main([*flags, "--figures-only"])
    assert not out.exists()


@pytest.mark.parametrize("content", ['{"results": {}}', '{"results":', "[]"])
def test_damaged_metrics_are_named(tiny, content):
    flags, out = tiny
    out.mkdir()
    (out / "metrics.json").write_text(content)
    with pytest.raises(utils.InputError, match="holds no intact metrics"):
        q1_vae.main([*flags, "--figures-only"])


def test_figures_only_draws_the_curves_from_the_metrics_alone(tiny):
    flags, out = tiny
    q1_vae.main(flags)
    before = digest(out)
    for path in out.iterdir():
        if path.name != "metrics.json":
            path.unlink()
    (out.parent / "mnist.npz").unlink()
    q1_vae.main([*flags, "--figures-only"])
    assert digest(out) == {
        name: before[name] for name in ("metrics.json", "report.md", "elbo.png", "log_likelihood.png")
    }


def test_loss_that_is_not_finite_stops_at_once_and_keeps_the_last_checkpoint(tiny, monkeypatch):
    flags, out = tiny
    elbo, calls = q1_vae.elbo, []

    def diverging(*arguments):
        calls.append(len(arguments[1]))
        value = elbo(*arguments)
        return value * float("nan") if len(calls) > 4 else value  # 2 epochs of one update and one validation

    monkeypatch.setattr(q1_vae, "elbo", diverging)
    with pytest.raises(utils.InputError, match="the loss in epoch 3 is not finite; what was saved before is kept"):
        q1_vae.main([*flags, "--epochs", "5"])
    assert len(calls) == 5
    state = torch.load(out / "checkpoint_analytic_seed0.pt", weights_only=True)
    assert len(state["history"]["elbo"]) == 2
    assert all(torch.isfinite(tensor).all() for tensor in state["states"]["vae"].values())


def test_validation_that_is_not_finite_is_not_saved(tiny):
    flags, out = tiny
    with pytest.raises(utils.InputError, match="the ELBO after epoch 1 is not finite"):
        q1_vae.main([*flags, "--lr", "1e30"])
    assert digest(out) == {}


def test_metrics_are_valid_json_with_their_origin(tmp_path):
    first = {"command": ["python q9.py"], "commit": [], "device": ["cpu (one)"]}
    provenance = utils.merge(first, first | {"device": ["cpu (two)"]})
    content = {"config": {"lr": 0.1}, "seconds": 1.5, "history": {"a": {"loss": [1.0]}}, "results": {}}
    utils.save_metrics(argparse.Namespace(out=tmp_path), "q9", "digits", provenance, **content)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    keys = ["script", "command", "device", "data", "versions", "config", "seconds", "history", "results"]
    assert list(metrics) == keys
    assert metrics["data"] == "digits" and metrics["config"] == {"lr": 0.1}
    assert metrics["command"] == "python q9.py" and metrics["device"] == "cpu (one); cpu (two)"
    assert metrics["versions"]["torch"] == torch.__version__
    assert metrics["history"] == {"a": {"loss": [1.0]}}


def test_provenance_names_command_commit_and_processor_of_every_session(tmp_path, monkeypatch):
    repository = tmp_path / "repository"
    repository.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    (repository / "utils.py").write_text("first")
    monkeypatch.setattr(utils, "__file__", str(repository / "utils.py"))
    monkeypatch.setattr(utils, "describe", lambda _: "cpu (a model)")
    monkeypatch.setattr(sys, "argv", ["q1_vae.py", "--lr", "0.1", "--out", str(tmp_path / "a b"), "--restart"])
    args = q1_vae.get_args()
    command = f"python q1_vae.py --lr 0.1 --out '{tmp_path}/a b'"
    expected = {"command": [command], "commit": [], "device": ["cpu (a model)"]}
    assert utils.provenance(args, {}) == expected
    for step in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *step], check=True)
    (commit,) = utils.provenance(args, {})["commit"]
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert len(commit) >= 7 and head.startswith(commit)
    (repository / "utils.py").write_text("second")
    assert utils.provenance(args, expected | {"commit": [commit]}) == expected | {"commit": [commit, f"{commit}+"]}


def test_processor_is_named_by_its_model():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or "model name" not in cpuinfo.read_text():
        pytest.skip("this system does not say what its processor is")
    model = cpuinfo.read_text().split("model name\t: ")[1].splitlines()[0]
    assert utils.describe(torch.device("cpu")).startswith(f"cpu ({model}, {torch.get_num_threads()} thread")
