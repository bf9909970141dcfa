"""Every row of the fixtures' manifest: an imported model matches its framework, a refused one is refused by name."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from streamlstm.errors import ModelFileError
from streamlstm.model.forward import run
from streamlstm.model.importing import read_foreign

FIXTURES = Path(__file__).parent.parent / "fixtures"
MANIFEST = json.loads((FIXTURES / "manifest.json").read_text())
ROWS = [(row["file"], row["expect"], row.get("io")) for row in MANIFEST["models"]]
BAD = [row["file"] for row in MANIFEST["bad"]]
# "either" rows that are imported here; the others are refused, naming why.
IMPORTED_ANYWAY = {
    "torch/lstmcell_torch.pt",
    "onnx/hand_onnx_layout1.onnx",
    "keras/timedistributed.keras",
    "keras/normalization.keras",
    "keras/rescaling.keras",
}
REASONS = {
    "torch/seed_torch_fullmodel.pt": "torch.save(model.state_dict()",
    "torch/seed_torch_torchscript.pt": "TorchScript",
    "torch/proj_torch_h32_p12.pt": "lstm.weight_hr_l0: projection",
    "torch/either_two_chained_lstms.pt": "lstm1, lstm2",
    "torch/refuse_bidirectional.pt": "weight_ih_l0_reverse",
    "torch/refuse_gru.pt": "GRU",
    "torch/refuse_rnn_tanh.pt": "RNN",
    "torch/refuse_two_heads.pt": "fc1.weight, fc2.weight",
    "torch/refuse_batchnorm.pt": "bn.weight",
    "torch/refuse_attention.pt": "attn.weight, fc.weight",
    "torch/refuse_two_lstms.pt": "dec, enc",
    "torch/refuse_conv_front.pt": "conv.weight",
    "torch/refuse_no_head.pt": "no output layer",
    "torch/refuse_quantized.pt": "_packed_params",
    "onnx/refuse_onnx_peephole.onnx": "P: ",
    "onnx/refuse_onnx_bidirectional.onnx": "bidirectional",
    "onnx/refuse_onnx_reverse.onnx": "reverse",
    "onnx/refuse_onnx_acts.onnx": "HardSigmoid",
    "onnx/refuse_onnx_clip.onnx": "clip",
    "onnx/refuse_onnx_input_forget.onnx": "input_forget",
    "keras/seed_keras_savedmodel": "model.save('m.keras')",
    "keras/act_relu.keras": "'relu'",
    "keras/act_relu_legacy.h5": "'relu'",
    "keras/rec_hard_sigmoid.keras": "'hard_sigmoid'",
    "keras/rec_hard_sigmoid_legacy.h5": "'hard_sigmoid'",
    "keras/keras2_hard_sigmoid.h5": "'hard_sigmoid'",
    "keras/two_dense.keras": "'relu'",
    "keras/dense_tanh.keras": "'tanh'",
    "keras/masking.keras": "Masking",
    "keras/refuse_gru.keras": "GRU",
    "keras/refuse_gru_legacy.h5": "GRU",
    "keras/refuse_gru.weights.h5": "gru",
    "keras/refuse_simplernn.keras": "SimpleRNN",
    "keras/refuse_bidirectional.keras": "Bidirectional",
    "keras/refuse_bidirectional_legacy.h5": "Bidirectional",
    "keras/refuse_bidirectional.weights.h5": "bidirectional",
    "keras/refuse_go_backwards.keras": "go_backwards",
    "keras/refuse_go_backwards_legacy.h5": "go_backwards",
    "keras/refuse_conv.keras": "Conv1D",
    "keras/refuse_layernorm.keras": "LayerNormalization",
    "keras/refuse_residual.keras": "not a chain",
}


def accepted(file: str, expect: str) -> bool:
    return expect == "import" or file in IMPORTED_ANYWAY


def hold(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    excess = np.abs(found - expected) - (2e-6 + 1e-5 * np.abs(expected))
    assert excess.max() <= 0.0, excess.max()


@pytest.mark.parametrize(("file", "expect", "io"), [row for row in ROWS if accepted(row[0], row[1])])
def test_an_accepted_model_matches_its_framework(file: str, expect: str, io: str) -> None:
    imported = read_foreign(FIXTURES / file)
    known = np.load(FIXTURES / io)
    trace = run(imported.parameters, known["X"])
    hold(trace.y[:, -1], known["y64"] if "y64" in known else known["y"])
    if "yseq64" in known:
        hold(trace.y, known["yseq64"])
        hold(trace.hidden, known["hseq64"])
        for layer, (h, c) in enumerate(zip(trace.h, trace.c, strict=True)):
            hold(h, known[f"h64_{layer}"])
            hold(c, known[f"c64_{layer}"])


@pytest.mark.parametrize("file", [row[0] for row in ROWS if not accepted(row[0], row[1])])
def test_a_refused_model_is_refused_by_name(file: str) -> None:
    with pytest.raises(ModelFileError) as refusal:
        read_foreign(FIXTURES / file)
    message = str(refusal.value)
    assert refusal.value.exit_code == 65
    assert message.startswith(str(FIXTURES / file))
    assert REASONS[file] in message
    assert "expected" in message
    assert "found" in message


@pytest.mark.parametrize("file", BAD)
def test_a_bad_file_is_refused_and_runs_nothing(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "payload-ran"
    monkeypatch.setenv("STREAMLSTM_PWN_MARKER", str(marker))
    with pytest.raises(ModelFileError) as refusal:
        read_foreign(FIXTURES / "bad" / Path(file).name)
    message = str(refusal.value)
    assert message.startswith(str(FIXTURES / "bad" / Path(file).name))
    assert "expected" in message
    assert "found" in message
    assert len(message) < 1500
    assert not marker.exists()
    assert not Path(tempfile.gettempdir(), "streamlstm_escape.txt").exists()


@pytest.mark.parametrize(
    ("file", "window", "carried"),
    [
        ("keras/functional.keras", 32, False),
        ("keras/unroll_named.keras", 32, False),
        ("keras/seed_keras.keras", None, False),
        ("keras/stateful.keras", None, True),
        ("keras/stateful_legacy.h5", None, True),
        ("onnx/seed_torch_dynamo.onnx", 24, False),
        ("onnx/seed_torch_legacy_op17.onnx", None, False),
        ("onnx/seed_torch_stateful_step.onnx", None, True),
        ("torch/seed_torch.pt", None, False),
    ],
)
def test_what_the_file_says_about_its_state(file: str, window: int | None, carried: bool) -> None:
    imported = read_foreign(FIXTURES / file)
    assert (imported.fixed_window, imported.carried) == (window, carried)


@pytest.mark.parametrize("file", ["keras/seed_keras.weights.h5", "keras/seed_keras2.weights.h5"])
def test_weights_alone_say_what_was_assumed(file: str) -> None:
    assert any("tanh" in note and "sigmoid" in note for note in read_foreign(FIXTURES / file).notes)


def test_a_checkpoint_says_what_was_left() -> None:
    (note,) = read_foreign(FIXTURES / "torch/seed_torch_checkpoint.pt").notes
    assert "optimizer_state_dict" in note
    assert "model_state_dict" in note
