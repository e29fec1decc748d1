"""Build a NeMo model of one family and write it as a small, reproducible .nemo archive."""

import gzip
import hashlib
import io
import logging
import os
import re
import tarfile
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import nemo.collections.asr as nemo_asr
import torch
from nemo.collections.asr.models.asr_eou_models import EncDecRNNTBPEEOUModel
from nemo.collections.asr.models.multitalker_asr_models import EncDecMultiTalkerRNNTBPEModel
from nemo.collections.asr.models.rnnt_bpe_models_prompt import EncDecRNNTBPEModelWithPrompt
from nemo.utils import logging as nemo_logging
from omegaconf import OmegaConf

from tools.parity.families import Family, Size, model_config
from tools.parity.tokenizer import make_tokenizer

nemo_logging.setLevel(logging.ERROR)

EXTRA_CLASSES = {
    model.__name__: model
    for model in (EncDecRNNTBPEEOUModel, EncDecMultiTalkerRNNTBPEModel, EncDecRNNTBPEModelWithPrompt)
}


def build_model(family: Family, size: Size, tokenizer_folder: Path):
    """Construct the NeMo class of `family` in evaluation mode, with its own tokenizer."""
    make_tokenizer(tokenizer_folder, size.vocab, family.extra_tokens)
    config = OmegaConf.create(model_config(family, size, str(tokenizer_folder)))
    model_class = EXTRA_CLASSES.get(family.model_class) or getattr(nemo_asr.models, family.model_class)
    torch.manual_seed(0)
    model = model_class(cfg=config)
    model.preprocessor.featurizer.dither = 0.0
    return model.eval()


def save_archive(model, path: Path, compress: bool) -> None:
    """Write `model` with NeMo's `save_to`, then repack it reproducibly."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model.nemo"
        model.save_to(str(written))
        path.write_bytes(repack(written, compress))


def repack(written: Path, compress: bool) -> bytes:
    """Name artifacts by their content instead of a random number; drop times, owners and folders.

    The prompt dictionary's Norwegian key `no` is written without quotes, as in the published file.
    """
    with tarfile.open(written) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive.getmembers() if m.isfile()}
    config_name = next(name for name in members if name.endswith("model_config.yaml"))
    config = members[config_name].decode()
    renamed = {}
    for name, content in members.items():
        fresh = name
        if match := re.search(r"([0-9a-f]{32})_", name):
            digest = hashlib.md5(content).hexdigest()
            config = config.replace(name.removeprefix("./"), name.removeprefix("./").replace(match[1], digest))
            fresh = name.replace(match[1], digest)
        renamed[fresh] = content
    config = re.sub(r"^(\s+)'no':", r"\1no:", config, flags=re.MULTILINE)
    config = re.sub(r"^(\s+dir:) .*/", r"\1 ", config, flags=re.MULTILINE)
    renamed[config_name] = config.encode()
    return pack(renamed, compress)


def pack(members: dict[str, bytes], compress: bool) -> bytes:
    """Return a tar (or tar.gz) of `members` without times or owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in sorted(members):
            entry = tarfile.TarInfo(name)
            entry.size = len(members[name])
            archive.addfile(entry, io.BytesIO(members[name]))
    return gzip.compress(buffer.getvalue(), mtime=0) if compress else buffer.getvalue()
