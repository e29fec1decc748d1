"""What makes models and references: training, parity, generated files, the demo."""

import os

# As `conure.telemetry` does, which the environments of others that run from here do not have.
for _name in (
    *("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"),
    *("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK"),
):
    os.environ.setdefault(_name, "1")
