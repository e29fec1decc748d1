"""Development tools: training, parity references, generated files, the demo."""

import os

# As in `conure.telemetry`, which is not installed in the environments of other projects.
for _name in (
    *("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED"),
    *("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK"),
):
    os.environ.setdefault(_name, "1")
